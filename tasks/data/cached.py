"""Cache files of decoded data that are verified when they are read: sealed JSON, and arrays whose hashes it holds.

A file in the cache is not trusted because of its name. A JSON file ends with a seal, the SHA-256 of its folder, name
and text, by which a damaged file or one from another place is noticed. It holds the SHA-256 of the array beside it. An
array that is read into memory is hashed each time (1 to 2 s a GiB). An array that is memory-mapped may have hundreds of
GiB; it is hashed only if inode or times of its file differ from those after writing, as any change to a file changes
these.
"""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from bench.errors import BenchError
from bench.system import store
from tasks.data.decoding import last_line
from tasks.data.sources import stamp

Array = Shaped[np.ndarray, "..."]
_SEAL = ', "seal": "'


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write an object, which must not be empty, and its seal to a file, atomically."""
    text = json.dumps(content).removesuffix("}")
    store.write_text(path, f'{text}{_SEAL}{_seal(path, text)}"}}')


def read_json(path: Path) -> dict[str, Any]:
    """Read the object that ``write_json`` wrote to a file.

    Raises:
        BenchError: the file cannot be read, or its seal is wrong.
    """
    try:
        whole = path.read_text(encoding="utf-8")
        text, _, seal = whole.rpartition(_SEAL)
        if seal != f'{_seal(path, text)}"}}':
            raise ValueError("it is not what was written there")
        content: dict[str, Any] = json.loads(whole)
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} is damaged: {last_line(error)}") from error
    return content


def _seal(path: Path, text: str) -> str:
    """Return the SHA-256 of a file's folder, name and text."""
    place = f"{path.parent.name}/{path.name}\n"
    return hashlib.sha256((place + text).encode()).hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """Return what ``read_array`` needs to verify a file, as plain data: its SHA-256, inode and times."""
    return {"sha256": store.file_hash(path), "file": list(stamp(path, path.name))}


def load_array(path: Path, large: int) -> Array:
    """Return the array in a file, unverified; a file of at least ``large`` bytes is memory-mapped.

    Mode "c" (copy on write) makes the memory writable, as torch wants it, but never writes to the file.
    """
    array: Array = np.load(path, mmap_mode="c" if path.stat().st_size >= large else None)
    return array


def read_array(path: Path, described: dict[str, Any], shape: tuple[int, ...], large: int) -> Array:
    """Verify the array in a file and return it as ``load_array`` does.

    Args:
        path: the file.
        described: result of ``describe`` after the file was written.
        shape: shape that the array must have.
        large: size in bytes from which a file is memory-mapped.

    Raises:
        BenchError: the file is missing or was changed, or the array has another shape.
    """
    try:
        mapped = path.stat().st_size >= large
        same = mapped and list(stamp(path, path.name)) == described["file"]
        if not same and store.file_hash(path) != described["sha256"]:
            raise ValueError("it is not what was written there")
        array = load_array(path, large)
        if array.shape != shape:
            raise ValueError(f"its shape is {array.shape}, expected {shape}")
    except (OSError, ValueError, LookupError, TypeError, EOFError) as error:
        raise BenchError(f"{path} is damaged: {last_line(error)}") from error
    return array


def stage_array(path: Path, make: Callable[[], None], shape: tuple[int, ...], large: int) -> Array:
    """Return the array in a file of the store; ``make`` writes the file first if it is missing, changed or damaged.

    Args:
        path: the file; the JSON file with its hash is beside it.
        make: writes the array to the file.
        shape: shape that the array must have.
        large: size in bytes from which the file is memory-mapped.
    """
    meta = path.with_suffix(".json")

    def write() -> Array:
        make()
        return load_array(path, large)

    def write_hash(_: object, path: Path) -> None:
        describe_now = functools.partial(describe, path)
        store.stage(meta, read_json, describe_now, write_json, force=True)

    return store.stage(
        path,
        load=lambda path: read_array(path, read_json(store.fetch(meta)), shape, large),
        make=write,
        save=write_hash,
    )
