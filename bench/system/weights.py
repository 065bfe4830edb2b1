"""Reading of weights from untrusted files, without running code in them or taking more memory than they hold."""

import io
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import BadRequest
from bench.system import reading

# Types of tensors: the plain numbers of networks, which every operation knows.
PLAIN = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip
SHARING = 4  # times that one value of a file may stand in its tensors, as tied weights do


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from a .pth file without running code in it.

    Raises:
        BadRequest: the file is missing, no regular file, damaged, or holds anything but dense tensors with values.
    """
    if not path.exists():
        raise BadRequest(f"no file {path}: expected .safetensors or .pth weights")
    with reading.opened(path, None, "file of weights") as file:
        try:
            content = load_file(path) if path.suffix == ".safetensors" else _unpickled(file)
        except Exception as error:  # the unpickler's errors have no common type
            raise _unreadable(path, error) from error
        size = file.seek(0, io.SEEK_END)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise BadRequest(
            f"{path} is not a state dict: expected names and tensors, and nothing else"
        )
    _check_plain(content, size, path)
    return content


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
    with warnings.catch_warnings():
        # A file of another pickle protocol is read, or refused below; sparse tensors are refused.
        warnings.simplefilter("ignore")
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_plain(tensors: dict[str, Tensor], size: int, path: Path) -> None:
    """Check that tensors are dense, hold values of their own, and are no larger in all than a file of ``size`` bytes.

    Raises:
        BadRequest: one of them is sparse, nested, quantized or without values, or their memory is shared too often.
    """
    total = 0
    for name, tensor in tensors.items():
        kind = (
            "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else tensor.layout
        )
        if kind != torch.strided:
            raise BadRequest(f"{path}: tensor '{name}' is {kind}, expected a dense one")
        if tensor.dtype not in PLAIN:
            raise BadRequest(f"{path}: tensor '{name}' is {tensor.dtype}, expected plain numbers")
        if tensor.device.type != "cpu":
            raise BadRequest(f"{path}: tensor '{name}' has no values ({tensor.device})")
        total += tensor.numel() * tensor.element_size()
    if total > SHARING * size:
        raise BadRequest(f"{path} has {size:,} bytes, its tensors would take {total:,}")


def _unreadable(path: Path, error: Exception) -> BadRequest:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
    return BadRequest(
        f"{path} cannot be read as plain weights ({reason}): expected a state dict of tensors"
    )
