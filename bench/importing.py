"""State dicts made elsewhere become a zoo."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import BadRequest
from bench.zoo import Layout, Zoo

SUFFIXES = (".pth", ".pt", ".safetensors")


def import_zoo(files: Sequence[Path], base: Path | None = None) -> Zoo:
    """A zoo of the state dicts in these files and folders, in the order of their names.

    The floating-point tensors that differ between the files are the checkpoints' layout; what is equal in all of them,
    and what ``base`` adds, is the base.

    Raises:
        BadRequest: no file, an unreadable one, or files that do not hold the same tensors.
    """
    paths = sorted((path for file in files for path in _inside(file)), key=_number_order)
    if not paths:
        raise BadRequest("no checkpoints to import: expected .pth or .safetensors state dicts")
    states = [read_weights(path) for path in paths]
    first = states[0]
    for path, state in zip(paths, states, strict=True):
        _check_same(first, state, paths[0], path)
    varying = [name for name in first if first[name].is_floating_point() and _differs(name, states)]
    if len(states) == 1 or not varying:
        varying = [name for name, tensor in first.items() if tensor.is_floating_point()]
    if not varying:
        raise BadRequest(f"{paths[0]} holds no floating-point tensors")
    layout = Layout.of({name: first[name] for name in varying})
    rows = torch.stack([layout.flatten({n: s[n].float() for n in varying}) for s in states])
    rest = read_weights(base) if base else {}
    rest |= {name: tensor for name, tensor in first.items() if name not in varying}
    kept = {name: tensor for name, tensor in rest.items() if name not in varying}
    return Zoo(rows, layout, kept, settings={"imported": [path.name for path in paths]})


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file, or from a .pth file without running any code in it.

    Raises:
        BadRequest: missing, damaged, or holding anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadRequest(f"no file {path}: expected .safetensors or .pth weights") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # the unpickler's refusals have no common type of their own
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


def _number_order(path: Path) -> list[tuple[bool, str | int]]:
    """A sort key that puts 2.pth before 10.pth."""
    parts = re.split(r"(\d+)", str(path))
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in parts]


def _inside(path: Path) -> list[Path]:
    """The checkpoints of a folder, or the file itself."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    return [path]


def _check_same(a: dict[str, Tensor], b: dict[str, Tensor], path_a: Path, path_b: Path) -> None:
    odd = sorted(set(a).symmetric_difference(b))
    if odd:
        raise BadRequest(
            f"{path_b} and {path_a} do not hold the same tensors: only one has '{odd[0]}'"
        )
    for name in a:
        if a[name].shape != b[name].shape:
            raise BadRequest(
                f"{path_b}: '{name}' has shape {tuple(b[name].shape)}, "
                f"expected {tuple(a[name].shape)} as in {path_a}"
            )


def _differs(name: str, states: list[dict[str, Tensor]]) -> bool:
    return any(not torch.equal(states[0][name], state[name]) for state in states[1:])
