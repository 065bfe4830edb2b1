"""The backbone that p-diff and the VAE share: encoder, decoder and their training, 1-D CNN or dense."""

import dataclasses
import os
import shutil
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bench.contract import check
from bench.contract.zoo import Layout
from generators.networks import training
from generators.networks.autoencoders import ConvDecoder, ConvEncoder, Convolutions
from generators.networks.blocks import NORMALIZATIONS, dense
from generators.networks.checks import at_least, one_of, widths
from generators.networks.standardizer import Standardizer
from generators.networks.training import SCHEDULES

BLOCKS = ("conv", "linear")
STANDARDIZATIONS = ("tensor", "parameter")


@dataclasses.dataclass
class Backbone:
    """The hyperparameters of encoder, decoder and training, and the networks they describe.

    Attributes:
        blocks: "conv" (1-D CNN) or "linear" (fully connected).
        normalization: of every layer but the last: "none", "batch", "group", "instance", or "batch-train": batch
            normalization that is never put into eval mode. Trained on batches, encoder and decoder are then given
            one vector at a time, as if they had instance normalization.
        channels: of the encoder's convolutions; the decoder mirrors them. If "linear", only their
            number matters.
        kernel: positions a convolution sees.
        stride: a convolution shortens by at most this much.
        width: features of a fully connected layer.
        latent_dim: length of a latent.
        standardize: mean 0 and std 1 for each named "tensor" (as in p-diff's official code) or for each
            single "parameter": what checkpoints have in common is then exact, and all capacity is left
            for how they differ. Where they differ little, "tensor" learns the common part alone.
        batch_size: checkpoints an iteration.
        weight_decay: of AdamW.
        schedule: of the learning rate, "constant" or "cosine" (with a short warm-up).
        compiled: train through torch.compile, which wants a C++ compiler. It takes half a minute, makes an
            iteration shorter by an eighth to a fifth, and changes results within rounding.
    """

    blocks: str = "conv"
    normalization: str = "instance"
    channels: tuple[int, ...] = (16, 16, 16, 16)
    kernel: int = 7
    stride: int = 16
    width: int = 256
    latent_dim: int = 128
    standardize: str = "parameter"
    batch_size: int = 32
    weight_decay: float = 2e-6
    schedule: str = "cosine"
    compiled: bool = False

    def __post_init__(self) -> None:
        one_of("blocks", self.blocks, BLOCKS)
        one_of("normalization", self.normalization, NORMALIZATIONS)
        one_of("standardize", self.standardize, STANDARDIZATIONS)
        one_of("schedule", self.schedule, SCHEDULES)
        self.channels = widths("channels", self.channels)
        check(self.kernel % 2 == 1, f"kernel is {self.kernel}, expected an odd number")
        for name in ("kernel", "stride", "width", "latent_dim"):
            at_least(name, getattr(self, name), 1)
        at_least("batch_size", self.batch_size, 2)
        at_least("weight_decay", self.weight_decay, 0)

    def new_encoder(self, dim: int, outputs: int) -> nn.Module:
        """Make a network from vectors ``n dim`` to features ``n outputs``."""
        if self.blocks == "conv":
            return ConvEncoder(dim, outputs, self._convolutions())
        return dense(dim, self._hidden(), outputs, self.normalization)

    def new_decoder(self, dim: int) -> nn.Module:
        """Make a network from latents ``n latent_dim`` to vectors ``n dim``."""
        if self.blocks == "conv":
            return ConvDecoder(self.latent_dim, dim, self._convolutions())
        return dense(self.latent_dim, self._hidden(), dim, self.normalization)

    def _convolutions(self) -> Convolutions:
        return Convolutions(self.channels, self.kernel, self.stride, self.normalization)

    def _hidden(self) -> list[int]:
        return [self.width] * (len(self.channels) - 1)

    @property
    def together(self) -> int:
        """How many vectors are encoded or decoded at a time once the networks are trained."""
        return 1 if self.normalization == "batch-train" else self.batch_size

    def standardizer(self, vectors: Float[Tensor, "K D"], layout: Layout) -> Standardizer:
        """Fit the map that gives parameters mean 0 and std 1, as ``standardize`` says."""
        return Standardizer.fit(vectors, layout if self.standardize == "tensor" else None)

    def to_train(self, network: nn.Module) -> nn.Module:
        """Return the network as training calls it: compiled where that was asked for, with the same parameters.

        Raises:
            BadRequest: there is no compiler.
        """
        if not self.compiled:
            return network
        known = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "cl"]
        check(
            any(map(shutil.which, known)),
            f"compiled is on, expected a C++ compiler ({', '.join(known)}): install one, or --set compiled=false",
        )
        return torch.compile(network)  # type: ignore[return-value]

    def minimise(
        self,
        module: nn.Module,
        loss: Callable[[], Float[Tensor, ""]],
        *,
        part: str,
        iterations: int,
        learning_rate: float,
        average: AveragedModel | None = None,
    ) -> None:
        """Lower ``loss()`` with this backbone's optimizer, see ``generators.networks.training.minimise``.

        Args:
            module: the networks that are trained; they end in eval mode.
            loss: of the next batch.
            part: what is trained, for progress and errors.
            iterations: optimizer steps.
            learning_rate: at its highest.
            average: follows the module's parameters.

        Raises:
            BenchError: the loss is not finite; it says where.
        """
        groups = training.parameter_groups(module, learning_rate)
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay, fused=True)
        factor = training.decay(self.schedule, iterations)
        training.minimise(module.train(), loss, optimizer, factor, part, iterations, average)
