"""A store that machines share: any folder that fsspec knows (file://, s3://, gs://, ...), behind the local one.

``BENCH_STORE`` names it. Results of stages are looked for there before they are made, and put there afterwards; they
are addressed by content, so that two machines may put the same result at once.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BadRequest, BenchError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def url() -> str | None:
    """Return the URL of the shared store; None if there is only the local one."""
    return os.environ.get("BENCH_STORE") or None


def check() -> None:
    """Check that the shared store, if there is one, can be used.

    Raises:
        BadRequest: its URL is invalid, or needs a package that is not installed.
        BenchError: it does not answer.
    """
    if url():
        exists("probe")


def exists(name: str) -> bool:
    """Return whether the shared store has a file of this name."""
    with _opened() as (files, root):
        return bool(files.exists(f"{root}/{name}"))


def get(name: str, path: Path) -> None:
    """Copy a file of the shared store to a path."""
    with _opened() as (files, root):
        files.get_file(f"{root}/{name}", str(path))


def put(path: Path, name: str) -> None:
    """Copy a file into the shared store, atomically: no partial file ever has its name."""
    with _opened() as (files, root):
        folder, _, last = f"{root}/{name}".rpartition("/")
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex}"
        files.makedirs(folder, exist_ok=True)
        files.put_file(str(path), temporary)
        files.mv(temporary, f"{root}/{name}")


@contextmanager
def _opened() -> "Iterator[tuple[AbstractFileSystem, str]]":
    """Yield the file system of the shared store, and the store's path in it.

    Raises:
        BadRequest: the URL is invalid, or needs a package that is not installed.
        BenchError: the file system raised an error.
    """
    import fsspec  # here, because few runs need it

    try:
        files, root = fsspec.core.url_to_fs(url())
    except (ValueError, ImportError) as error:
        raise BadRequest(f"BENCH_STORE={url()} cannot be used: {error}") from None
    try:
        yield files, root.rstrip("/")
    except Exception as error:  # each file system has its own
        reason = f"{type(error).__name__}: {error}"
        raise BenchError(f"the shared store {url()} does not work: {reason}") from error
