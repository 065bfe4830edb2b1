"""The denoising networks of image generation: diffusers' UNet2DModel in the DDPM configuration, and a small one."""

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from bench.errors import BadRequest, BenchError, unknown
from bench.system.weights import read_weights

# What both share; the conventions of the original code (Ho et al. 2020) that the released checkpoints were made with.
_DDPM: dict[str, Any] = {
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ddpm32": {  # google/ddpm-cifar10-32: 35.7 million parameters, attention at 16 x 16
        **_DDPM,
        "block_out_channels": (128, 256, 256, 256),
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "downsample_padding": 0,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "ddpm8": {  # for images of 8 x 8; few groups, because many are slow on a CPU
        **_DDPM,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    },
}
RELEASED = {"ddpm32": "google/ddpm-cifar10-32"}


def build(arch: str, channels: int, size: int) -> nn.Module:
    """The architecture for images of this shape, freshly initialised, in eval mode.

    Raises:
        BadRequest: an unknown architecture, or a side that it cannot halve often enough.
    """
    if arch not in ARCHITECTURES:
        raise unknown("architecture", arch, ARCHITECTURES)
    config = ARCHITECTURES[arch]
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    if size % factor:
        raise BadRequest(f"'{arch}' takes images whose side is a multiple of {factor}, not {size}")
    model: Any = UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=channels, **config
    )
    made: nn.Module = model.eval()
    return made


def load(arch: str, channels: int, size: int, source: str) -> nn.Module:
    """The architecture with trained weights.

    Args:
        arch, channels, size: see ``build``.
        source: "released" (downloaded by diffusers), a folder that diffusers saved, or a file of weights.

    Raises:
        BadRequest: weights that cannot be read, or are of another network.
        BenchError: the released weights could not be downloaded.
    """
    model = build(arch, channels, size)
    if source != "released" and not Path(source).exists():
        raise BadRequest(
            f"no weights at {source}: expected 'released', a diffusers folder or a file"
        )
    weights = read_weights(Path(source)) if Path(source).is_file() else _saved(arch, model, source)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(f"{source} does not hold weights of '{arch}' ({reason})") from None
    return model


def _saved(arch: str, model: Any, source: str) -> dict[str, Tensor]:
    """Weights by diffusers' own loading, which also reads the names of its early versions."""
    released = source == "released"
    if released and arch not in RELEASED:
        raise BadRequest(f"'{arch}' has no released weights: leave --pretrained out")
    place = RELEASED[arch] if released else source
    folder = None if released or not Path(source, "unet").is_dir() else "unet"
    try:
        found: Any = UNet2DModel.from_pretrained(place, subfolder=folder, torch_dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        if released:
            raise BenchError(
                f"the released weights {place} could not be had ({reason}): give a local diffusers "
                "folder or a file, --pretrained PATH, or leave it out to train here"
            ) from error
        raise BadRequest(f"{source} is no folder of a diffusers UNet2DModel ({reason})") from error
    for name in (*ARCHITECTURES[arch], "in_channels", "sample_size", "center_input_sample"):
        ours, theirs = (_plain(one.config[name]) for one in (model, found))
        if ours != theirs:
            raise BadRequest(f"{place} is no '{arch}': its {name} is {theirs}, expected {ours}")
    weights: dict[str, Tensor] = found.state_dict()
    return weights


def _plain(value: Any) -> Any:
    """Lists as tuples: a configuration that was read has the former, one that was written the latter."""
    return tuple(value) if isinstance(value, list) else value
