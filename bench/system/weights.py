"""Reading of weights from untrusted files, without running code in them or taking more memory than they hold."""

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import BadRequest, printable
from bench.system import reading

# Under which names training programs keep the state dict, in the order of preference: moving averages come last.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "network", "net", "module",
    "state_dict_ema", "model_ema", "ema_state_dict", "ema",
)  # fmt: skip
# Types of tensors: the plain numbers of networks, which every operation knows.
PLAIN = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip
SHARING = 4  # times that one value of a file may stand in its tensors, as tied weights do
SHOWN = 8  # names of a file that a message lists
_GLOBAL = re.compile(r"(?:GLOBAL|class|global:?) ([\w.]+\.[\w.]+)")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from a file of torch.save without running code in it.

    The state dict may lie in a training checkpoint, under a name of ``WRAPPERS``. Numbers and texts among the tensors
    (an epoch, an accuracy) are left out.

    Raises:
        BadRequest: the file is missing, damaged, or holds no state dict of plain tensors.
    """
    if not path.exists():
        raise BadRequest(f"no file {path}: expected .safetensors or .pth weights")
    with reading.opened(path, None, "file of weights") as file:
        content = _content(path, file)
        size = file.seek(0, io.SEEK_END)
    while isinstance(content, dict) and (inner := _wrapped(content)) is not None:
        content = inner
    if not isinstance(content, dict):
        raise BadRequest(f"{path} is not a state dict: it holds {_kind(content)}")
    tensors = _tensors(path, content)
    _check_size(tensors, size, path)
    return tensors


def _content(path: Path, file: io.BufferedReader) -> Any:
    """Return what an open file holds: tensors, numbers, texts and containers of them."""
    try:
        return load_file(path) if _is_safetensors(path, file) else _unpickled(file)
    except Exception as error:  # the unpickler's errors have no common type
        raise _unreadable(path, error) from error


def _is_safetensors(path: Path, file: io.BufferedReader) -> bool:
    """Return whether a file is one of safetensors, by its suffix or, where that says nothing, by its first bytes."""
    if path.suffix.lower() == ".safetensors":
        return True
    file.seek(0)
    start = file.read(9)
    return start[:2] not in (b"PK", b"\x80\x02") and start[8:] == b"{"


def _unpickled(file: io.BufferedReader) -> object:
    """Return what a .pth file holds; a zip in it may not unpack to more than the file has, as torch compresses none.

    Raises:
        Exception: the file is damaged, or holds code.
    """
    if zipfile.is_zipfile(file):
        size = file.seek(0, io.SEEK_END)
        unpacked = sum(entry.file_size for entry in zipfile.ZipFile(file).infolist())
        if unpacked > size:
            raise ValueError(f"it has {size:,} bytes and unpacks to {unpacked:,}")
    file.seek(0)
    with warnings.catch_warnings(), torch.serialization.safe_globals(_INERT):
        warnings.simplefilter("ignore")  # of a file in an old form, which is read, or refused below
        return torch.load(file, map_location="cpu", weights_only=True)


def _wrapped(content: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    """Return the state dict inside a training checkpoint; None where the content itself is all there is."""
    inner = (content.get(name) for name in WRAPPERS)
    return next((value for value in inner if isinstance(value, dict) and value), None)


def _tensors(path: Path, content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict.

    Raises:
        BadRequest: there are none, something else is among them, or they are of an unusual kind.
    """
    if {"w", "m", "p"} <= content.keys():
        raise BadRequest(
            f"{path} is a sample of SANE's data sets (w, m, p: tokens, mask, positions), not a state dict: import the "
            "checkpoints that the data set was made of"
        )
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    scalars = (int, float, str, type(None))
    others = [name for name in content if name not in tensors]
    usable = all(isinstance(content[name], scalars) for name in others)
    if not tensors or not usable or not all(isinstance(name, str) for name in content):
        raise BadRequest(
            f"{path} is not a state dict, names and tensors and nothing else: it holds {_listed(content)}"
        )
    for name, tensor in tensors.items():
        if unusual := _unusual(tensor):
            raise BadRequest(
                f"{path}: '{printable(name)}' is {unusual}, expected float16, bfloat16, float32, float64 or "
                "whole numbers"
            )
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _unusual(tensor: Tensor) -> str:
    """Return in words why a tensor cannot be used; nothing where it can."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.device.type != "cpu":
        return f"without values ({tensor.device})"
    if tensor.is_quantized or tensor.is_nested or tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        what = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else layout
        return f"{what} ({kind})"
    return "" if tensor.dtype in PLAIN else kind


def _check_size(tensors: Mapping[str, Tensor], size: int, path: Path) -> None:
    """Check that tensors take no more memory in all than a file of ``size`` bytes justifies.

    Raises:
        BadRequest: their memory is shared too often.
    """
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total > SHARING * size:
        raise BadRequest(f"{path} has {size:,} bytes, its tensors would take {total:,}")


def _listed(content: Mapping[Any, Any]) -> str:
    """Return what a mapping holds, by the names of its first entries."""
    parts = [f"{printable(str(n))[:60]!r} ({_kind(v)})" for n, v in list(content.items())[:SHOWN]]
    more = f" and {len(content) - SHOWN} more" if len(content) > SHOWN else ""
    return (", ".join(parts) or "nothing") + more


def _kind(value: object) -> str:
    return "a tensor" if isinstance(value, Tensor) else type(value).__name__.lstrip("_").lower()


def _unreadable(path: Path, error: Exception) -> BadRequest:
    if found := _GLOBAL.search(str(error)):
        return BadRequest(
            f"{path} holds a pickled {found[1]}, whose code would run: it is not opened; expected a state dict "
            "of tensors"
        )
    reason = printable(next(iter(str(error).strip().splitlines()), type(error).__name__))[:160]
    return BadRequest(
        f"{path} cannot be read as plain weights ({reason}): expected a state dict of tensors"
    )


# Stand-ins for classes that are often found beside weights, which do nothing but keep the place ----------------------


class _Left:
    """Stands for an object that nothing needs: an array, a number's type, the arguments of a program."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        """Ignore what it holds."""


class _Number(float):
    """Stands for a numpy scalar, whose value nothing needs."""

    def __new__(cls, *_: object) -> "_Number":
        """Make one, whatever it is of."""
        return super().__new__(cls)


_CORE = ("numpy.core.multiarray", "numpy._core.multiarray")
_LEFT = (
    "numpy.dtype", "numpy.ndarray", *(f"{module}._reconstruct" for module in _CORE),
    *(f"numpy.dtypes.{type(np.dtype(one)).__name__}" for one in ("f8", "f4", "i8", "i4", "?")),
    "argparse.Namespace", "pathlib.PosixPath", "pathlib._local.PosixPath",
)  # fmt: skip
_INERT: list[Any] = [
    *((_Left, name) for name in _LEFT),
    *((_Number, f"{module}.scalar") for module in _CORE),
]
