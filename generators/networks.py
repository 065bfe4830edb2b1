"""The backbone that p-diff and the VAE share: encoder, decoder and denoiser of convolutions or linear layers.

Feature maps are laid out ``n C 1 L`` in ``channels_last`` memory: a 1-D convolution written as a 2-D one of height 1.
On a CPU that is several times faster than ``conv1d``, and it makes up- and downsampling by reshaping free.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bench.errors import BenchError
from bench.progress import track
from bench.randomness import derive
from bench.zoo import Layout
from generators.base import check

BLOCKS = ("conv", "linear")
NORMALIZATIONS = ("none", "batch", "group", "instance")
STANDARDIZATIONS = ("tensor", "parameter")
SCHEDULES = ("constant", "cosine")
_GROUPS = 8
_SHORTEST = 8  # positions a feature map keeps, so that normalising over positions stays meaningful
_LOOK_EVERY = 50  # iterations between two looks at the loss: each look waits for the device
_FAN_IN = 1024  # the fan-in up to which a layer trains at the full learning rate


def total_strides(dim: int, channels: Sequence[int], stride: int) -> tuple[int, ...]:
    """Parameters that one position of each layer's feature map stands for, for vectors of length ``dim``.

    It grows by at most ``stride`` a layer; it never exceeds the layer's channels, so that no feature map is narrower
    than the vector; and it leaves at least a few positions of a short vector.

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
    """The normalization layer of ``channels`` channels; instance is group normalization with a channel a group."""
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
    """``y + act(norm(y))``: the identity path keeps the scale that instance normalization takes away."""
    return y + F.leaky_relu(normalize(y), 0.1)


class Down(nn.Module):
    """Convolution that shortens by ``stride``, then normalization and activation beside the identity."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, kind: str) -> None:
        super().__init__()
        size = max(kernel, stride)
        padding = (size - stride + 1) // 2
        self.conv = nn.Conv2d(inputs, outputs, (1, size), (1, stride), (0, padding))
        self.norm = norm(kind, outputs, outputs)

    def forward(self, x: Float[Tensor, "n C 1 L"]) -> Float[Tensor, "n C2 1 L2"]:
        return _residual(self.conv(x), self.norm)


class Expand(nn.Module):
    """Convolution that lengthens by ``stride``: each position yields the channels of ``stride`` positions."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.conv = nn.Conv2d(inputs, outputs * stride, (1, kernel), padding=(0, kernel // 2))

    def forward(self, x: Float[Tensor, "n C 1 L"]) -> Float[Tensor, "n C2 1 L2"]:
        rows = self.conv(x).permute(0, 2, 3, 1)
        return rows.reshape(len(x), 1, -1, self.outputs).permute(0, 3, 1, 2)


class Up(nn.Module):
    """``Expand``, then normalization and activation beside the identity."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, kind: str) -> None:
        super().__init__()
        self.expand = Expand(inputs, outputs, kernel, stride)
        self.norm = norm(kind, outputs, outputs)

    def forward(self, x: Float[Tensor, "n C 1 L"]) -> Float[Tensor, "n C2 1 L2"]:
        return _residual(self.expand(x), self.norm)


class Dense(nn.Module):
    """Linear layer, then normalization (over the features) and activation beside the identity."""

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = norm(kind, outputs, 1)

    def forward(self, x: Float[Tensor, "n I"]) -> Float[Tensor, "n O"]:
        return _residual(self.linear(x), self.norm)


class ConvEncoder(nn.Module):
    """Vectors of length ``dim`` to ``outputs`` features: convolutions, then one projection without normalization."""

    def __init__(self, dim: int, outputs: int, backbone: "Backbone") -> None:
        super().__init__()
        widths, strides, self.length = backbone.plan(dim)
        self.pad = self.length * math.prod(strides) - dim
        self.layers = nn.Sequential(
            *(
                Down(a, b, backbone.kernel, s, backbone.normalization)
                for a, b, s in zip((1, *widths), widths, strides, strict=False)
            )
        )
        self.project = nn.Linear(widths[-1] * self.length, outputs)

    def forward(self, v: Float[Tensor, "n D"]) -> Float[Tensor, "n outputs"]:
        h = self.layers(F.pad(v, (0, self.pad))[:, None, None])
        return self.project(h.permute(0, 2, 3, 1).flatten(1))


class ConvDecoder(nn.Module):
    """The mirror image of ``ConvEncoder``; its last convolution is not normalised."""

    def __init__(self, inputs: int, dim: int, backbone: "Backbone") -> None:
        super().__init__()
        self.dim = dim
        widths, strides, self.length = backbone.plan(dim)
        self.width = widths[-1]
        self.project = nn.Linear(inputs, self.width * self.length)
        pairs = zip(widths[:0:-1], widths[-2::-1], strides[:0:-1], strict=True)
        ups = (Up(a, b, backbone.kernel, s, backbone.normalization) for a, b, s in pairs)
        self.layers = nn.Sequential(*ups, Expand(widths[0], 1, backbone.kernel, strides[0]))

    def forward(self, z: Float[Tensor, "n inputs"]) -> Float[Tensor, "n D"]:
        h = self.project(z).view(len(z), 1, self.length, self.width).permute(0, 3, 1, 2)
        return self.layers(h).flatten(1)[:, : self.dim]


def dense(inputs: int, widths: Sequence[int], outputs: int, kind: str) -> nn.Sequential:
    """Fully connected layers of these widths, then one projection without normalization."""
    sizes = (inputs, *widths)
    hidden = [Dense(a, b, kind) for a, b in zip(sizes, widths, strict=False)]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], outputs))


def time_embedding(t: Int[Tensor, " n"], width: int) -> Float[Tensor, "n width"]:
    """Sinusoidal embedding of timesteps: sines and cosines of geometrically spaced frequencies."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ConvDenoiser(nn.Module):
    """A 1-D U-Net over the latent: down, up, skip connections, the time embedding added before every layer."""

    EMBEDDING = 64

    def __init__(self, latent_dim: int, channels: Sequence[int], kernel: int, kind: str) -> None:
        super().__init__()
        self.strides = [2 if s > 0 else 1 for s in range(len(channels))]
        factor = math.prod(self.strides)
        self.pad = -latent_dim % factor
        self.position = nn.Parameter(torch.randn(1, 1, 1, latent_dim + self.pad))
        ins = (2, *channels)
        self.down = nn.ModuleList(
            Down(a, b, kernel, s, kind)
            for a, b, s in zip(ins, channels, self.strides, strict=False)
        )
        tops = list(channels[::-1])
        self.up = nn.ModuleList(
            Up(a, b, kernel, 2, kind) for a, b in zip(tops, tops[1:], strict=False)
        )
        self.times = nn.ModuleList(
            nn.Linear(self.EMBEDDING, c) for c in (*ins[:-1], *tops)
        )
        self.project = nn.Conv2d(channels[0], 1, (1, kernel), padding=(0, kernel // 2))
        nn.init.zeros_(self.project.weight)

    def forward(self, z: Float[Tensor, "n l"], t: Int[Tensor, " n"]) -> Float[Tensor, "n l"]:
        e = time_embedding(t, self.EMBEDDING)
        add = [layer(e)[:, :, None, None] for layer in self.times]
        h = F.pad(z, (0, self.pad))[:, None, None]
        h = torch.cat([h, self.position.expand(len(z), -1, -1, -1)], 1).contiguous(memory_format=torch.channels_last)
        skips = []
        for layer, a in zip(self.down, add, strict=False):
            h = layer(h + a)
            skips.append(h)
        skips.pop()
        for layer, a in zip(self.up, add[len(self.down):], strict=False):
            h = layer(h + a) + skips.pop()
        return self.project(h + add[-1]).flatten(1)[:, : z.shape[1]]


class DenseDenoiser(nn.Module):
    """Fully connected residual layers over the latent, the time embedding added before every layer."""

    EMBEDDING = 64

    def __init__(self, latent_dim: int, width: int, depth: int, kind: str) -> None:
        super().__init__()
        self.enter = nn.Linear(latent_dim, width)
        self.times = nn.ModuleList(nn.Linear(self.EMBEDDING, width) for _ in range(depth))
        self.layers = nn.ModuleList(Dense(width, width, kind) for _ in range(depth))
        self.project = nn.Linear(width, latent_dim)
        nn.init.zeros_(self.project.weight)

    def forward(self, z: Float[Tensor, "n l"], t: Int[Tensor, " n"]) -> Float[Tensor, "n l"]:
        e = time_embedding(t, self.EMBEDDING)
        h = self.enter(z)
        for layer, time in zip(self.layers, self.times, strict=True):
            h = h + layer(h + time(e))
        return self.project(h)


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
    def fit(cls, vectors: Float[Tensor, "K D"], layout: Layout | None) -> Self:
        """Mean and std of each named tensor over all checkpoints, or of each single parameter without a layout."""
        if layout is None:
            std, mean = torch.std_mean(vectors, dim=0, correction=0)
            return cls(mean, std)
        pairs = [torch.std_mean(piece, correction=0) for piece in vectors.split(layout.sizes, dim=1)]
        sizes = torch.tensor(layout.sizes, device=vectors.device)
        std, mean = (torch.stack(part).repeat_interleave(sizes) for part in zip(*pairs, strict=True))
        return cls(mean, std)

    def apply(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Parameters to standardised values."""
        return (vectors - self.mean) / self.std.clamp_min(torch.finfo(self.std.dtype).tiny)

    def undo(self, values: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Standardised values to parameters."""
        return values * self.std + self.mean


def _groups(module: nn.Module, rate: float) -> list[dict[str, Any]]:
    """One optimizer group a parameter, with smaller steps where the fan-in is large.

    Adam moves every weight by about its learning rate, so a layer's output moves in proportion to its fan-in: with one
    rate for all, long vectors would diverge where short ones hardly learn.
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


def train(
    module: nn.Module,
    loss: Callable[[], Tensor],
    *,
    part: str,
    iterations: int,
    learning_rate: float,
    weight_decay: float,
    schedule: str,
    average: AveragedModel | None = None,
) -> None:
    """Minimise ``loss()`` over the module's parameters with AdamW, and let ``average`` follow.

    Raises:
        BenchError: the loss is not finite; it says where.
    """
    groups = _groups(module.train(), learning_rate)
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, decay(schedule, iterations))
    for iteration in track(range(1, iterations + 1), f"training the {part}"):
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        scheduler.step()
        if average is not None:
            average.update_parameters(module)
        if iteration % _LOOK_EVERY == 0 or iteration == iterations:
            _look(value.detach(), part, iteration)
    module.eval()


def decay(schedule: str, iterations: int) -> Callable[[int], float]:
    """The factor of the learning rate at each iteration."""
    if schedule == "constant":
        return lambda _: 1.0
    warmup = max(1, iterations // 20)
    return lambda i: min(1.0, (i + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * i / iterations))


def ema(module: nn.Module, rate: float) -> AveragedModel:
    """Exponential moving average of a module's parameters (its buffers are copied)."""
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(rate)).eval()


def batch(
    rows: Float[Tensor, "K d"], size: int, rng: torch.Generator
) -> Float[Tensor, "b d"]:
    """Random distinct rows; all of them where there are no more than ``size``, a single one twice."""
    count = max(2, len(rows))
    index = torch.randperm(count, generator=rng, device=rows.device)[:size]
    return rows[index % len(rows)]


def normal_like(x: Tensor, rng: torch.Generator) -> Tensor:
    """Standard normal values of the shape of ``x``."""
    return torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)


@dataclasses.dataclass
class Backbone:
    """Hyperparameters of the encoder and decoder, with the networks they describe."""

    blocks: str = "conv"
    normalization: str = "instance"
    channels: tuple[int, ...] = (16, 16, 32, 32)
    kernel: int = 7
    stride: int = 16
    width: int = 256
    latent_dim: int = 128
    standardize: str = "parameter"
    batch_size: int = 64
    weight_decay: float = 2e-6
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        one_of("blocks", self.blocks, BLOCKS)
        one_of("normalization", self.normalization, NORMALIZATIONS)
        one_of("standardize", self.standardize, STANDARDIZATIONS)
        one_of("schedule", self.schedule, SCHEDULES)
        at_least("channels", min(self.channels, default=0), 1)
        check(self.kernel % 2 == 1 and self.kernel > 0, f"kernel is {self.kernel}, expected a positive odd number")
        at_least("stride", self.stride, 1)
        at_least("width", self.width, 1)
        at_least("latent_dim", self.latent_dim, 1)
        at_least("batch_size", self.batch_size, 2)
        at_least("weight_decay", self.weight_decay, 0)

    def plan(self, dim: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Channels and stride of each layer, and the length of the last feature map, for vectors of length dim."""
        totals = total_strides(dim, self.channels, self.stride)
        strides = tuple(b // a for a, b in zip((1, *totals), totals, strict=False))
        return tuple(self.channels), strides, max(_SHORTEST, -(-dim // totals[-1]))

    def encoder(self, dim: int, outputs: int) -> nn.Module:
        """Vectors ``n dim`` to features ``n outputs``."""
        if self.blocks == "conv":
            return ConvEncoder(dim, outputs, self)
        return dense(dim, [self.width] * (len(self.channels) - 1), outputs, self.normalization)

    def decoder(self, dim: int) -> nn.Module:
        """Latents ``n latent_dim`` to vectors ``n dim``."""
        if self.blocks == "conv":
            return ConvDecoder(self.latent_dim, dim, self)
        widths = [self.width] * (len(self.channels) - 1)
        return dense(self.latent_dim, widths, dim, self.normalization)


def one_of(name: str, value: str, valid: Sequence[str]) -> None:
    """Check that a hyperparameter is one of the valid names."""
    check(value in valid, f"{name} is '{value}', expected one of {', '.join(valid)}")


def at_least(name: str, value: float, least: float) -> None:
    """Check a hyperparameter's lower bound (NaN fails)."""
    check(value >= least, f"{name} is {value}, expected at least {least}")
