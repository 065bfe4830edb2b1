"""Model inputs from the uint8 images of a split: normalised, resized and augmented on the device, batch by batch."""

import dataclasses

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from tasks.data.labelled import ImageData, Split


@dataclasses.dataclass(frozen=True)
class Images:
    """One split, from which batches of model inputs are made on a device.

    Attributes:
        examples: the images, on the device; on the CPU if the device has too little free memory.
        labels: class of each image, on the device; or, for segmentation, of each pixel, beside ``examples``.
        mean, std: mean and standard deviation of each channel, for pixels in [0, 1]; on the device.
        size: side of the model's input in pixels; images of another size are resized.
        device: device of the model inputs.
    """

    examples: UInt8[Tensor, "M C H W"]
    labels: Int64[Tensor, " M"] | UInt8[Tensor, "M H W"]
    mean: Float[Tensor, "C 1 1"]
    std: Float[Tensor, "C 1 1"]
    size: int
    device: str

    @classmethod
    def of(cls, data: ImageData, split: Split, size: int, device: str) -> "Images":
        """Return a split for use on a device; its images stay on the CPU if they need half of the free memory or more.

        Args:
            data: the data set, for mean and standard deviation.
            split: the images and labels.
            size: side of the model's input in pixels.
            device: device of the model inputs.
        """
        column = [
            torch.tensor(values).view(-1, 1, 1).to(device) for values in (data.mean, data.std)
        ]
        pixels = split.images.to(device) if fits(split.images.numel(), device) else split.images
        return cls(pixels, split.labels.to(device), column[0], column[1], size, device)

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, examples: UInt8[Tensor, "*B C H W"]) -> Float[Tensor, "*B C S S"]:
        """Return images as model inputs: normalised, and resized (bilinear, antialiased) to ``size`` x ``size``."""
        batch = examples.to(
            self.device, non_blocking=True
        ).float()  # a new tensor: pixels are integers
        batch.sub_(255 * self.mean).div_(255 * self.std)
        if batch.shape[-1] == self.size and batch.shape[-2] == self.size:
            return batch
        flat = batch.reshape(-1, *batch.shape[-3:])
        flat = F.interpolate(flat, (self.size, self.size), mode="bilinear", antialias=True)
        return flat.reshape(*batch.shape[:-2], self.size, self.size)

    def augmented(
        self,
        examples: UInt8[Tensor, "B C H W"],
        labels: Int64[Tensor, " B"],
        name: str,
        rng: torch.Generator,
    ) -> tuple[UInt8[Tensor, "B C H W"], Int64[Tensor, " B"]]:
        """Augment a batch of images at random; return them with their labels, which do not change.

        Args:
            examples: the images.
            labels: the class of each.
            name: key of this module's ``AUGMENTATIONS``.
            rng: generator of the random numbers.
        """
        return AUGMENTATIONS[name](examples, rng), labels


def fits(size: int, device: str) -> bool:
    """Return whether ``size`` bytes take less than half of a GPU's free memory; always True on the CPU."""
    return not device.startswith("cuda") or size < torch.cuda.mem_get_info(device)[0] // 2


def flip(pixels: UInt8[Tensor, "B C H W"], rng: torch.Generator) -> UInt8[Tensor, "B C H W"]:
    """Mirror each image horizontally with probability 1/2."""
    mirrored = torch.rand(len(pixels), 1, 1, 1, generator=rng, device=rng.device) < 0.5
    return torch.where(mirrored.to(pixels.device), pixels.flip(3), pixels)


def crop_flip(pixels: UInt8[Tensor, "B C H W"], rng: torch.Generator) -> UInt8[Tensor, "B C H W"]:
    """Pad each image by an eighth of its height, crop it at random to its size, and mirror it as ``flip`` does."""
    count, _, height, width = pixels.shape
    pad = height // 8
    padded = F.pad(pixels, (pad, pad, pad, pad))
    draw = torch.randint(2 * pad + 1, (2, count, 1), generator=rng, device=rng.device)
    top, left = draw.to(pixels.device)
    mirrored = torch.rand(count, 1, generator=rng, device=rng.device).to(pixels.device) < 0.5
    columns = torch.arange(width, device=pixels.device).expand(count, width)
    columns = left + torch.where(mirrored, columns.flip(1), columns)
    rows = top + torch.arange(height, device=pixels.device)
    example = torch.arange(count, device=pixels.device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[example, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)


AUGMENTATIONS = {"flip": flip, "crop-flip": crop_flip}
