"""Reading of weights from untrusted files, without running code in them."""

import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import BadRequest


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from a .pth file without running code in it.

    Raises:
        BadRequest: the file is missing, damaged, or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # A file of another pickle protocol is read, or refused below.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadRequest(f"no file {path}: expected .safetensors or .pth weights") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # the unpickler's errors have no common type
        raise _unreadable(path, error) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise BadRequest(
            f"{path} is not a state dict: expected names and tensors, and nothing else"
        )
    return content


def _unreadable(path: Path, error: Exception) -> BadRequest:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
    return BadRequest(
        f"{path} cannot be read as plain weights ({reason}): expected a state dict of tensors"
    )
