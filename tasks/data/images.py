"""Images of a split on the device: normalised, resized and augmented there batch by batch."""

import dataclasses

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from tasks.data.labelled import ImageData, Split


@dataclasses.dataclass(frozen=True)
class Images:
    """One split on the device: uint8 pixels, turned into model inputs batch by batch.

    Attributes:
        examples: uint8 images; on the device, or on the CPU where they would not fit.
        labels: class numbers of the images, on the device; or of every pixel, where the pixels are.
        mean, std: per channel, of the training images in [0, 1].
        size: side of the model's input; smaller or larger images are resized.
        device: where batches are wanted.
    """

    examples: UInt8[Tensor, "M C H W"]
    labels: Int64[Tensor, " M"] | UInt8[Tensor, "M H W"]
    mean: Float[Tensor, "C 1 1"]
    std: Float[Tensor, "C 1 1"]
    size: int
    device: str

    @classmethod
    def of(cls, data: ImageData, split: Split, size: int, device: str) -> "Images":
        """Move a split to the device, unless it takes more than half of the device's free memory."""
        column = [
            torch.tensor(values).view(-1, 1, 1).to(device) for values in (data.mean, data.std)
        ]
        pixels = split.images.to(device) if fits(split.images.numel(), device) else split.images
        return cls(pixels, split.labels.to(device), column[0], column[1], size, device)

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, examples: UInt8[Tensor, "*B C H W"]) -> Float[Tensor, "*B C S S"]:
        """Normalise, and resize where the model wants another size."""
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
        """Vary images at random by an augmentation of ``AUGMENTATIONS``; their classes stay."""
        return AUGMENTATIONS[name](examples, rng), labels


def fits(size: int, device: str) -> bool:
    """Return whether so many bytes take less than half of the device's free memory."""
    return not device.startswith("cuda") or size < torch.cuda.mem_get_info(device)[0] // 2


def flip(pixels: UInt8[Tensor, "B C H W"], rng: torch.Generator) -> UInt8[Tensor, "B C H W"]:
    """Mirror each image at random, for a whole batch at once."""
    mirrored = torch.rand(len(pixels), 1, 1, 1, generator=rng, device=rng.device) < 0.5
    return torch.where(mirrored.to(pixels.device), pixels.flip(3), pixels)


def crop_flip(pixels: UInt8[Tensor, "B C H W"], rng: torch.Generator) -> UInt8[Tensor, "B C H W"]:
    """Crop each image at random after padding by an eighth of the side, and mirror it at random."""
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
