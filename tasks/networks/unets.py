"""Denoising networks for image generation: diffusers' UNet2DModel in the configuration of DDPM, and a small one."""

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from bench.contract.declarations import Shape
from bench.errors import BadRequest, BenchError
from bench.system.weights import read_weights

# Settings of both networks: conventions of the original DDPM code (Ho et al. 2020), as the released weights need.
_DDPM: dict[str, Any] = {
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "ddpm32": {  # google/ddpm-cifar10-32: 35.7 million parameters, attention at 16 x 16
        **_DDPM,
        "block_out_channels": (128, 256, 256, 256),
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "downsample_padding": 0,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "ddpm8": {  # for images of 8 x 8 pixels; few groups in normalization, because many are slow on a CPU
        **_DDPM,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    },
}
RELEASED = {"ddpm32": "google/ddpm-cifar10-32"}  # Hugging Face repositories of released weights


def build(shape: Shape, config: str, *, pretrained: str | None = None) -> nn.Module:
    """Build a denoising network.

    Args:
        shape: size and channels of the images.
        config: key of ``CONFIGS``.
        pretrained: None, "released" (downloaded by diffusers), a folder that diffusers saved, or a file of weights.

    Raises:
        BadRequest: the weights cannot be read, or are of another network.
        BenchError: the released weights could not be downloaded.
    """
    channels = shape.channels
    model: Any = UNet2DModel(
        sample_size=shape.size, in_channels=channels, out_channels=channels, **CONFIGS[config]
    )
    if pretrained:
        _fill(model, config, pretrained)
    network: nn.Module = model
    return network


def forward(network: nn.Module, images: Tensor) -> None:
    """Run a network on a batch of noisy images, all at time step 0, for a measurement of its operations."""
    network(images, torch.zeros(len(images), dtype=torch.int64, device=images.device))


def _fill(model: Any, config: str, source: str) -> None:
    """Load trained weights into a network.

    Args:
        model: the network.
        config: key of ``CONFIGS``.
        source: "released", a folder that diffusers saved, or a file of weights.

    Raises:
        BadRequest: the weights cannot be read, or are of another network.
        BenchError: the released weights could not be downloaded.
    """
    if source != "released" and not Path(source).exists():
        raise BadRequest(
            f"no weights at {source}: expected 'released', a diffusers folder or a file"
        )
    path = Path(source)
    weights = read_weights(path) if path.is_file() else _diffusers_weights(config, model, source)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(f"{source} does not hold weights of '{config}' ({reason})") from None


def _diffusers_weights(config: str, model: Any, source: str) -> dict[str, Tensor]:
    """Read released weights or a folder through diffusers, which renames parameters of its early versions.

    Raises:
        BadRequest: there are no released weights, the folder cannot be read, or its configuration differs.
        BenchError: the released weights could not be downloaded.
    """
    released = source == "released"
    if released and config not in RELEASED:
        raise BadRequest(f"'{config}' has no released weights: leave --pretrained out")
    place = RELEASED[config] if released else source
    folder = None if released or not Path(source, "unet").is_dir() else "unet"
    try:
        saved: Any = UNet2DModel.from_pretrained(place, subfolder=folder, torch_dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        if released:
            raise BenchError(
                f"the released weights {place} could not be downloaded ({reason}): give a local diffusers "
                "folder or a file, --pretrained PATH, or leave it out to train here"
            ) from error
        raise BadRequest(f"{source} is no folder of a diffusers UNet2DModel ({reason})") from error
    for name in (*CONFIGS[config], "in_channels", "sample_size", "center_input_sample"):
        ours, theirs = (_plain(network.config[name]) for network in (model, saved))
        if ours != theirs:
            raise BadRequest(f"{place} is no '{config}': its {name} is {theirs}, expected {ours}")
    weights: dict[str, Tensor] = saved.state_dict()
    return weights


def _plain(value: Any) -> Any:
    """Return a list as a tuple, to compare a configuration read from JSON with one of this module; else ``value``."""
    return tuple(value) if isinstance(value, list) else value
