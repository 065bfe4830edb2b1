"""A store that machines share: any folder that fsspec knows (file://, s3://, gs://, ...), behind the local one.

``BENCH_STORE`` names it. Stages are looked for there before they are made, and put there once they are; what is in it
is addressed by its content, so two machines that put the same stage at once do no harm.
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
    """Return the shared store; None where there is only the local one."""
    return os.environ.get("BENCH_STORE") or None


def check() -> None:
    """Check before the work begins that a shared store, if there is one, can be used.

    Raises:
        BadRequest: the URL is none, or needs a package that is not there.
        BenchError: it does not answer.
    """
    if url():
        exists("probe")


def exists(name: str) -> bool:
    """Return whether the shared store has a file."""
    with _opened() as (files, root):
        return bool(files.exists(f"{root}/{name}"))


def get(name: str, path: Path) -> None:
    """Copy a file of the shared store to a path."""
    with _opened() as (files, root):
        files.get_file(f"{root}/{name}", str(path))


def put(path: Path, name: str) -> None:
    """Copy a file into the shared store; under its name it is whole or not there."""
    with _opened() as (files, root):
        folder, _, last = f"{root}/{name}".rpartition("/")
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex}"
        files.makedirs(folder, exist_ok=True)
        files.put_file(str(path), temporary)
        files.mv(temporary, f"{root}/{name}")


@contextmanager
def _opened() -> "Iterator[tuple[AbstractFileSystem, str]]":
    """Yield the file system, and the store's place in it."""
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
