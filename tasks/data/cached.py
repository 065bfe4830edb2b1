"""What is kept of decoded data in the cache: sealed JSON, and arrays whose content it vouches for.

Nothing that lies in the cache is believed because of its name. A JSON file ends with the SHA-256 of its place and its
text, so damage is noticed and a file from elsewhere too. It holds the SHA-256 of every array beside it; an array is
hashed whenever it is read into memory (1 to 2 s a GiB). One that is only mapped may have hundreds of GiB, and is hashed
only where the file is not the very one that was written: whatever changes a file changes its inode or its times.
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
    """Write an object that is not empty, with its seal, atomically."""
    text = json.dumps(content).removesuffix("}")
    store.write_text(path, f'{text}{_SEAL}{_seal(path, text)}"}}')


def read_json(path: Path) -> dict[str, Any]:
    """Read the object that ``write_json`` wrote to a file.

    Raises:
        BenchError: it is not that, or cannot be read.
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
    place = f"{path.parent.name}/{path.name}\n"
    return hashlib.sha256((place + text).encode()).hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """Describe an array's file for ``read_array``, as plain data: its SHA-256, and the file's state now."""
    return {"sha256": store.file_hash(path), "file": list(stamp(path, path.name))}


def load_array(path: Path, large: int) -> Array:
    """Return the array in a file that this process has written; of at least ``large`` bytes, a private memory map.

    Mode "c" lets torch take the memory as writable, and keeps what is written to it from the file.
    """
    array: Array = np.load(path, mmap_mode="c" if path.stat().st_size >= large else None)
    return array


def read_array(path: Path, described: dict[str, Any], shape: tuple[int, ...], large: int) -> Array:
    """Return the array in a file, as ``load_array`` gives it.

    Args:
        path: the file.
        described: what ``describe`` said of it when it was written.
        shape: the shape that it must have.
        large: files of at least this many bytes are mapped.

    Raises:
        BenchError: it is not there, not what was written, or of another shape.
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
    """Return the array in a file of the store, written by ``make`` where it is not there as it was."""
    meta = path.with_suffix(".json")

    def made() -> Array:
        make()
        return load_array(path, large)

    def vouch(_: object, path: Path) -> None:
        describe_now = functools.partial(describe, path)
        store.stage(meta, read_json, describe_now, write_json, force=True)

    return store.stage(
        path,
        load=lambda path: read_array(path, read_json(store.fetch(meta)), shape, large),
        make=made,
        save=vouch,
    )
