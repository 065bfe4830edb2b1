"""The backbone that p-diff and the VAE share: encoder, decoder and denoiser, 1-D CNN or dense.

A feature map is ``n C 1 L`` in ``channels_last`` memory, a 1-D convolution a 2-D one of height 1: on
a CPU that is several times faster than ``conv1d``, and lengthening a map is a mere reshape.
"""

import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bench.contract import check
from bench.contract.zoo import Layout
from bench.errors import BenchError
from bench.system.progress import track

BLOCKS = ("conv", "linear")
NORMALIZATIONS = ("none", "batch", "group", "instance")
STANDARDIZATIONS = ("tensor", "parameter")
SCHEDULES = ("constant", "cosine")
_GROUPS = 8
_SHORTEST = 8  # positions a feature map keeps, so that normalising over positions stays meaningful
_LOOK_EVERY = 50  # iterations between two looks at the loss: each look waits for the device
_TIME = 64  # width of the time embedding
_FAN_IN = 1024  # the fan-in up to which a layer trains at the full learning rate


def total_strides(dim: int, channels: Sequence[int], stride: int) -> tuple[int, ...]:
    """Parameters for which one position of each layer's feature map stands, at vector length ``dim``.

    It grows by at most ``stride`` a layer; it never exceeds the layer's channels, so that no feature
    map holds fewer values than the vector; and it leaves a few positions of a short vector.

    >>> total_strides(2048, (16, 16, 32, 32), 16)
    (16, 16, 32, 32)
    >>> total_strides(100, (16, 16, 32, 32), 16)
    (12, 12, 12, 12)
    """
    totals = [1]
    for width in channels:
        room = min(width, max(1, dim // _SHORTEST)) // totals[-1]
        totals.append(totals[-1] * max(1, min(stride, room)))
    return tuple(totals[1:])


def norm(kind: str, channels: int, groups: int) -> nn.Module:
    """The normalization of ``channels`` channels; "instance" is over each of ``groups`` groups."""
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return _BatchNorm(channels)
    return nn.GroupNorm(groups if kind == "instance" else math.gcd(_GROUPS, channels), channels)


class _BatchNorm(nn.BatchNorm2d):
    """Batch normalization of ``n C 1 L`` and of ``n C``."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim == 2:
            return super().forward(input[..., None, None])[..., 0, 0]
        return super().forward(input)


def _residual(y: Tensor, normalize: nn.Module) -> Tensor:
    """``y + act(norm(y))``: the identity keeps the scale that instance normalization takes away."""
    return F.leaky_relu(normalize(y), 0.1).add_(y)  # in place: allocating is slow


class Down(nn.Module):
    """Convolution that shortens by ``stride``, then ``y + act(norm(y))``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, kind: str) -> None:
        super().__init__()
        size = max(kernel, stride)
        padding = (size - stride + 1) // 2
        self.conv = nn.Conv2d(inputs, outputs, (1, size), (1, stride), (0, padding))
        self.norm = norm(kind, outputs, outputs)

    def forward(self, x: Float[Tensor, "n C 1 L"]) -> Float[Tensor, "n C2 1 L2"]:
        """Shorter feature map."""
        return _residual(self.conv(x), self.norm)


class Expand(nn.Module):
    """Convolution that lengthens: each position yields the channels of ``stride`` positions."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.conv = nn.Conv2d(inputs, outputs * stride, (1, kernel), padding=(0, kernel // 2))

    def forward(self, x: Float[Tensor, "n C 1 L"]) -> Float[Tensor, "n C2 1 L2"]:
        """Longer feature map."""
        rows: Tensor = self.conv(x).permute(0, 2, 3, 1)
        return rows.reshape(len(x), 1, -1, self.outputs).permute(0, 3, 1, 2)


class Up(nn.Module):
    """Convolution that lengthens by ``stride``, then ``y + act(norm(y))``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, kind: str) -> None:
        super().__init__()
        self.expand = Expand(inputs, outputs, kernel, stride)
        self.norm = norm(kind, outputs, outputs)

    def forward(self, x: Float[Tensor, "n C 1 L"]) -> Float[Tensor, "n C2 1 L2"]:
        """Longer feature map."""
        return _residual(self.expand(x), self.norm)


class Dense(nn.Module):
    """Linear layer, then ``y + act(norm(y))``; instance normalization is over all features."""

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = norm(kind, outputs, 1)

    def forward(self, x: Float[Tensor, "n I"]) -> Float[Tensor, "n O"]:
        """New features."""
        return _residual(self.linear(x), self.norm)


class ConvEncoder(nn.Module):
    """Vectors to ``outputs`` features: convolutions, then a projection that is not normalised."""

    def __init__(self, dim: int, outputs: int, backbone: "Backbone") -> None:
        super().__init__()
        strides, length = backbone.plan(dim)
        self.pad = length * math.prod(strides) - dim
        sizes = pairwise((1, *backbone.channels))
        self.layers = nn.Sequential(
            *(
                Down(a, b, backbone.kernel, stride, backbone.normalization)
                for (a, b), stride in zip(sizes, strides, strict=True)
            )
        )
        self.project = nn.Linear(backbone.channels[-1] * length, outputs)

    def forward(self, v: Float[Tensor, "n D"]) -> Float[Tensor, "n outputs"]:
        """Features of the vectors."""
        h = self.layers(F.pad(v, (0, self.pad))[:, None, None])
        z: Tensor = self.project(h.permute(0, 2, 3, 1).flatten(1))
        return z


class ConvDecoder(nn.Module):
    """Latents to vectors: the mirror image of ``ConvEncoder``, its last layer not normalised."""

    def __init__(self, dim: int, backbone: "Backbone") -> None:
        super().__init__()
        self.dim, self.width = dim, backbone.channels[-1]
        strides, self.length = backbone.plan(dim)
        self.project = nn.Linear(backbone.latent_dim, self.width * self.length)
        sizes = pairwise(backbone.channels[::-1])
        self.layers = nn.Sequential(
            *(
                Up(a, b, backbone.kernel, stride, backbone.normalization)
                for (a, b), stride in zip(sizes, strides[:0:-1], strict=True)
            ),
            Expand(backbone.channels[0], 1, backbone.kernel, strides[0]),
        )

    def forward(self, z: Float[Tensor, "n l"]) -> Float[Tensor, "n D"]:
        """Vectors of the latents."""
        h = self.project(z).view(len(z), 1, self.length, self.width).permute(0, 3, 1, 2)
        v: Tensor = self.layers(h)
        return v.flatten(1)[:, : self.dim]


def dense(inputs: int, hidden: Sequence[int], outputs: int, kind: str) -> nn.Sequential:
    """Fully connected layers of these widths, then a projection that is not normalised."""
    sizes = (inputs, *hidden)
    return nn.Sequential(
        *(Dense(a, b, kind) for a, b in pairwise(sizes)), nn.Linear(sizes[-1], outputs)
    )


def time_embedding(t: Int[Tensor, " n"], width: int) -> Float[Tensor, "n width"]:
    """Sinusoidal embedding of timesteps: sines and cosines of geometrically spaced frequencies."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _time_layers(widths: Sequence[int]) -> nn.Sequential:
    """From the time embedding to what is added before every layer, all layers side by side."""
    return nn.Sequential(nn.Linear(_TIME, 2 * _TIME), nn.SiLU(), nn.Linear(2 * _TIME, sum(widths)))


class ConvDenoiser(nn.Module):
    """A 1-D U-Net over the latent, with the time embedding added before every layer.

    A second input channel holds a learned value for each position: the coordinates of a latent,
    unlike the pixels of a picture, each mean something else.
    """

    def __init__(self, latent_dim: int, channels: Sequence[int], kernel: int, kind: str) -> None:
        super().__init__()
        factor = 2 ** len(channels)
        self.length = factor * max(2, -(-latent_dim // factor))
        self.position = nn.Parameter(torch.randn(1, 1, 1, self.length))
        sizes = (2, *channels)
        self.down = nn.ModuleList(Down(a, b, kernel, 2, kind) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(Up(a, b, kernel, 2, kind) for a, b in pairwise(channels[::-1]))
        self.project = _zeroed(Expand(channels[0], 1, kernel, 2))
        self.widths = [*sizes[:-1], *channels[::-1]]
        self.time = _time_layers(self.widths)

    def forward(self, z: Float[Tensor, "n l"], t: Int[Tensor, " n"]) -> Float[Tensor, "n l"]:
        """What the noise (or velocity) in ``z`` is, at timesteps ``t``."""
        shifts = self.time(time_embedding(t, _TIME))[..., None, None].split(self.widths, dim=1)
        h, inputs = self._enter(z), []
        for layer, shift in zip(self.down, shifts, strict=False):
            inputs.append(h)
            h = layer(h + shift)
        for layer, shift in zip(self.up, shifts[len(self.down) :], strict=False):
            h = layer(h + shift) + inputs.pop()
        out: Tensor = self.project(h + shifts[-1])
        return out.flatten(1)[:, : z.shape[1]]

    def _enter(self, z: Float[Tensor, "n l"]) -> Float[Tensor, "n 2 1 L"]:
        padded = F.pad(z, (0, self.length - z.shape[1]))[:, None, None]
        both = torch.cat([padded, self.position.expand(len(z), -1, -1, -1)], dim=1)
        return both.contiguous(memory_format=torch.channels_last)


class DenseDenoiser(nn.Module):
    """Residual dense layers over the latent, with the time embedding added before every layer."""

    def __init__(self, latent_dim: int, width: int, depth: int, kind: str) -> None:
        super().__init__()
        self.enter = nn.Linear(latent_dim, width)
        self.layers = nn.ModuleList(Dense(width, width, kind) for _ in range(depth))
        self.project = _zeroed(nn.Linear(width, latent_dim))
        self.widths = [width] * depth
        self.time = _time_layers(self.widths)

    def forward(self, z: Float[Tensor, "n l"], t: Int[Tensor, " n"]) -> Float[Tensor, "n l"]:
        """What the noise (or velocity) in ``z`` is, at timesteps ``t``."""
        shifts = self.time(time_embedding(t, _TIME)).split(self.widths, dim=1)
        h = self.enter(z)
        for layer, shift in zip(self.layers, shifts, strict=True):
            h = h + layer(h + shift)
        out: Tensor = self.project(h)
        return out


def _zeroed(module: nn.Module) -> nn.Module:
    """The module with all parameters zero, so that what it closes starts as the zero function."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


@dataclasses.dataclass(frozen=True)
class Standardizer:
    """The affine map that gives parameters mean 0 and standard deviation 1, and its inverse.

    Attributes:
        mean: subtracted; one number a parameter.
        std: divided by; 0 where the zoo does not vary, so that its one value comes back exactly.
    """

    mean: Float[Tensor, " D"]
    std: Float[Tensor, " D"]

    @classmethod
    def fit(cls, vectors: Float[Tensor, "K D"], layout: Layout | None) -> "Standardizer":
        """Of each named tensor over all checkpoints, or without a layout of each parameter."""
        if layout is None:
            std, mean = torch.std_mean(vectors, dim=0, correction=0)
        else:
            pieces = torch.split(vectors, list(layout.sizes), dim=1)
            pairs = [torch.std_mean(piece, correction=0) for piece in pieces]
            sizes = torch.tensor(layout.sizes, device=vectors.device)
            std, mean = (torch.stack(p).repeat_interleave(sizes) for p in zip(*pairs, strict=True))
        return cls(torch.where(std > 0, mean, vectors[0]), std)

    def apply(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Parameters to standardised values, 0 where the zoo does not vary."""
        return (vectors - self.mean) / torch.where(self.std > 0, self.std, 1.0)

    def undo(self, values: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Standardised values to parameters."""
        return values * self.std + self.mean


def _groups(module: nn.Module, rate: float) -> list[dict[str, Any]]:
    """One optimizer group a parameter, with smaller steps where the fan-in is large.

    Adam moves every weight by about its learning rate, so a layer's output moves in proportion to its
    fan-in: with one rate for all, long vectors would diverge where short ones hardly learn.
    """
    fan_ins = (math.prod(p.shape[1:]) if p.ndim > 1 else 1 for p in module.parameters())
    return [
        {"params": [p], "lr": rate * min(1.0, _FAN_IN / fan_in)}
        for p, fan_in in zip(module.parameters(), fan_ins, strict=True)
    ]


def _look(loss: Tensor, part: str, iteration: int) -> None:
    if not loss.isfinite():
        raise BenchError(
            f"the loss of the {part} is {loss.item()} at iteration {iteration}: "
            "try a lower learning rate or another normalization"
        )


def decay(schedule: str, iterations: int) -> Callable[[int], float]:
    """The factor of the learning rate at each iteration."""
    if schedule == "constant":
        return lambda _: 1.0
    warmup = max(1, iterations // 20)
    return lambda i: min(1.0, (i + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * i / iterations))


def ema(module: nn.Module, rate: float) -> AveragedModel:
    """Exponential moving average of a module's parameters (its buffers are copied)."""
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(rate)).eval()  # type: ignore[no-untyped-call]


def batch(rows: Float[Tensor, "K d"], size: int, rng: torch.Generator) -> Float[Tensor, "b d"]:
    """Random distinct rows: ``size`` of them, or all if there are fewer; a single one twice."""
    count = max(2, len(rows))
    index = torch.randperm(count, generator=rng, device=rows.device)[:size]
    return rows[index % len(rows)]


def normal_like(x: Tensor, rng: torch.Generator) -> Tensor:
    """Standard normal values of the shape of ``x``."""
    return torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)


@dataclasses.dataclass
class Backbone:
    """Hyperparameters of encoder, decoder and training, and the networks they describe.

    Attributes:
        blocks: "conv" (1-D CNN) or "linear" (fully connected).
        normalization: of every layer but the last: "none", "batch", "group" or "instance".
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

    def plan(self, dim: int) -> tuple[tuple[int, ...], int]:
        """Stride of each layer and length of the last feature map, at vector length ``dim``."""
        totals = total_strides(dim, self.channels, self.stride)
        strides = tuple(b // a for a, b in pairwise((1, *totals)))
        return strides, max(_SHORTEST, -(-dim // totals[-1]))

    def new_encoder(self, dim: int, outputs: int) -> nn.Module:
        """A network from vectors ``n dim`` to features ``n outputs``."""
        if self.blocks == "conv":
            return ConvEncoder(dim, outputs, self)
        return dense(dim, self._hidden(), outputs, self.normalization)

    def new_decoder(self, dim: int) -> nn.Module:
        """A network from latents ``n latent_dim`` to vectors ``n dim``."""
        if self.blocks == "conv":
            return ConvDecoder(dim, self)
        return dense(self.latent_dim, self._hidden(), dim, self.normalization)

    def _hidden(self) -> list[int]:
        return [self.width] * (len(self.channels) - 1)

    def standardizer(self, vectors: Float[Tensor, "K D"], layout: Layout) -> Standardizer:
        """Mean and std by this backbone's choice."""
        return Standardizer.fit(vectors, layout if self.standardize == "tensor" else None)

    def to_train(self, network: nn.Module) -> nn.Module:
        """The network as training calls it: compiled where that was asked for. It shares the parameters.

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
        """Lower ``loss()`` with AdamW, ``average`` following; the module ends in eval mode.

        Raises:
            BenchError: the loss is not finite; it says where.
        """
        groups = _groups(module.train(), learning_rate)
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay, fused=True)
        scheduler = LambdaLR(optimizer, decay(self.schedule, iterations))
        for iteration in track(range(1, iterations + 1), f"training the {part}"):
            optimizer.zero_grad(set_to_none=True)
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            if average is not None:
                average.update_parameters(module)
            if iteration % _LOOK_EVERY == 0 or iteration == iterations:
                _look(value, part, iteration)
        module.eval()


def in_chunks(
    network: Callable[[Tensor], Tensor], rows: Float[Tensor, "n d"], size: int
) -> Float[Tensor, "n e"]:
    """The network's outputs, computed at most ``size`` rows at a time."""
    with torch.no_grad():
        return torch.cat([network(chunk) for chunk in torch.split(rows, size)])


def one_of(name: str, value: str, valid: Sequence[str]) -> None:
    """Check that a hyperparameter is one of the valid names."""
    check(value in valid, f"{name} is '{value}', expected one of {', '.join(valid)}")


def at_least(name: str, value: float | int, least: int) -> None:
    """Check a hyperparameter's lower bound, and that it is finite."""
    check(least <= value < math.inf, f"{name} is {value}, expected at least {least}")


def widths(name: str, value: Sequence[int]) -> tuple[int, ...]:
    """Check that a hyperparameter lists layers' widths, and return it as a tuple."""
    good = isinstance(value, Sequence) and len(value) > 0 and all(w >= 1 for w in value)
    check(good, f"{name} is {value}, expected at least one positive number")
    return tuple(value)


def positive(name: str, value: float | int) -> None:
    """Check that a hyperparameter is above 0 and finite."""
    check(0 < value < math.inf, f"{name} is {value}, expected a positive number")
