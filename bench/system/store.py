"""Atomic writes, and a folder of stages' results that are addressed by the content of their input."""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import filelock
import platformdirs

from bench.errors import BadRequest, BenchError
from bench.system import reading, remote
from bench.system.data import Json
from bench.system.progress import say

T = TypeVar("T")
FULL = (errno.ENOSPC, errno.EDQUOT)
_watching: list[list[Path]] = []
_aside: list[Path] = []  # empty folders that stand in for the store, the innermost last


def home() -> Path:
    """Return the cache folder: ``BENCH_HOME``, or the user's cache folder."""
    if _aside:
        return _aside[-1]
    return Path(os.environ.get("BENCH_HOME") or platformdirs.user_cache_dir("pgen-bench"))


def digest(identity: Json) -> str:
    """Return a short hash of plain JSON data: 16 hexadecimal digits of SHA-256, keys sorted."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files and their names."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = [f"{file.relative_to(path).as_posix()} {file_hash(file)}\n" for file in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with reading.opened(path, None, "file") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it there on success, remove it on failure.

    Raises:
        BadRequest: the folder cannot be written.
        BenchError: the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        # safetensors reports a failed write as an exception of its own, with the system's text in it.
        if "No space left" in str(error) or getattr(error, "errno", None) in FULL:
            raise BenchError(
                f"the disk is full: cannot write {path}; free some space and run the command again, "
                "finished stages are kept"
            ) from error
        if isinstance(error, OSError) and (
            temporary is None or isinstance(error, PermissionError | IsADirectoryError)
        ):
            raise _unwritable(path, error) from error
        raise


def _unwritable(path: Path, error: OSError) -> BadRequest:
    return BadRequest(
        f"cannot write to {path.parent} ({error.strerror}): choose a folder that can be written"
    )


def check_writable(folder: Path) -> None:
    """Check that files can be written to a folder, which is made if it is missing.

    Raises:
        BadRequest: the folder cannot be written.
        BenchError: the disk is full.
    """
    with atomic(folder / ".writable") as probe:
        probe.touch()
    (folder / ".writable").unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def set_aside() -> Iterator[Path]:
    """Replace the store within the block by an empty folder, in which every stage is made and which is then removed.

    The shared store is neither read nor written.
    """
    with tempfile.TemporaryDirectory() as folder:
        _aside.append(Path(folder))
        try:
            yield _aside[-1]
        finally:
            _aside.pop()


@contextlib.contextmanager
def watched() -> Iterator[list[Path]]:
    """Yield a list to which the file of every stage made within the block is added; cached ones are not."""
    made: list[Path] = []
    _watching.append(made)
    try:
        yield made
    finally:
        _watching.remove(made)


def fetch(path: Path) -> Path:
    """Copy a stage's file from the shared store if only that one has it; return the path, which may not exist."""
    name = _shared(path)
    if name and not path.exists() and remote.exists(name):
        with atomic(path) as temporary:
            remote.get(name, temporary)
    return path


def _share(path: Path, *, anew: bool) -> None:
    """Put a stage's file into the shared store, if there is one that lacks it; with ``anew``, replace it there."""
    name = _shared(path)
    if name and (anew or not remote.exists(name)):
        remote.put(path, name)


def _shared(path: Path) -> str | None:
    """Return a file's name in the shared store; None without one, or for a file outside of the local store."""
    inside = not _aside and remote.url() and path.is_relative_to(home())
    return path.relative_to(home()).as_posix() if inside else None


def stage(
    path: Path,
    load: Callable[[Path], T],
    make: Callable[[], T],
    save: Callable[[T, Path], None],
    *,
    force: bool = False,
) -> T:
    """Return a stage's result: loaded if its file exists and is readable, otherwise made and saved.

    A lock beside the file makes concurrent processes that need the same stage wait for the first one's result. Where
    machines share a store (``bench.system.remote``), the file is looked for there too, and put there.

    Args:
        path: the file of the result.
        load, make, save: functions that read, compute and write the result.
        force: whether to make the result even if its file exists.
    """
    lock = filelock.FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        if not force and fetch(path).exists():
            try:
                result = load(path)
            except Exception as error:  # damaged, in whatever way
                say(f"made again: {path} is damaged ({type(error).__name__})")
            else:
                _share(path, anew=False)
                return result
        result = make()
        save(result, path)
        for made in _watching:
            made.append(path)
        _share(path, anew=True)
        return result
    finally:
        lock.release()
