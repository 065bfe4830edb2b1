"""Safe reading of untrusted files: only regular ones of limited size, and zip members of limited size."""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.errors import BadRequest

BLOCK = 1 << 20  # bytes read at a time
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may unpack a few bytes to any size
BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, struct.error, RuntimeError, OverflowError,
)  # fmt: skip

# O_NONBLOCK opens a pipe without waiting for a writer; O_BINARY exists and is needed on Windows alone.
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def content(path: Path, limit: int, what: str) -> bytes:
    """Return all bytes of a file.

    Args:
        path: the file.
        limit: its maximal size in bytes.
        what: the kind of file, for messages.

    Raises:
        BadRequest: the file is missing, not regular (a pipe would wait for ever), too large, or unreadable.
    """
    with opened(path, limit, what) as file:
        return file.read(limit)


def opened(path: Path, limit: int | None, what: str) -> io.BufferedReader:
    """Open a regular file for reading; arguments and errors are those of ``content``, a limit of None is none."""
    try:
        handle = os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        raise BadRequest(f"no {what} at {path}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadRequest(f"cannot read {path}: {reason}") from None
    status = os.fstat(handle)
    too_large = limit is not None and status.st_size > limit
    if not stat.S_ISREG(status.st_mode) or too_large:
        os.close(handle)
        if stat.S_ISDIR(status.st_mode):
            raise BadRequest(f"{path} is a directory, expected a {what}")
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest(f"{path} is no regular file, expected a {what}")
        raise BadRequest(f"{path} has {status.st_size:,} bytes, expected at most {limit:,}")
    return os.fdopen(handle, "rb")


def check_regular(path: Path, what: str) -> None:
    """Check that a file is a regular one, before a library is given its path; errors as of ``content``."""
    opened(path, None, what).close()


class Archive:
    """A zip whose members are checked before they are unpacked.

    Args:
        file: the zip.

    Raises:
        BadRequest: the file is no readable zip.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        try:
            self._zip = zipfile.ZipFile(_Careful(file))
        except (*BROKEN, UnicodeError) as error:
            raise BadRequest(f"not a readable zip ({error})") from None
        self.entries = self._zip.infolist()

    @property
    def names(self) -> list[str]:
        """The members' names, in order."""
        return [entry.filename for entry in self.entries]

    def problems(self, limits: Mapping[str, int]) -> Iterator[str]:
        """Yield the problems of all members before anything is unpacked, given limits in bytes by name."""
        for entry in self.entries:
            limit = limits.get(entry.filename)
            if limit is not None and entry.file_size > limit:
                yield f"{entry.filename} has {entry.file_size:,} bytes, expected at most {limit:,}"
            yield from locked(entry)

    def blocks(self, name: str, limit: int) -> Iterator[bytes]:
        """Yield a member's content in blocks of at most ``BLOCK`` bytes.

        Raises:
            BadRequest: the member is damaged, or unpacks to more than ``limit`` bytes, whatever its header says.
        """
        left = limit
        try:
            for problem in locked(self._zip.getinfo(name)):
                raise BadRequest(problem)
            with self._zip.open(name) as file:
                while block := file.read(min(BLOCK, left + 1)):
                    left -= len(block)
                    if left < 0:
                        raise BadRequest(f"{name} unpacks to more than {limit:,} bytes")
                    yield block
        except (*BROKEN, KeyError) as error:
            raise BadRequest(f"{name} cannot be unpacked ({error})") from None

    def read(self, name: str, limit: int) -> bytes:
        """Return a member's whole content; the errors are those of ``blocks``."""
        return b"".join(self.blocks(name, limit))


def locked(entry: zipfile.ZipInfo) -> Iterator[str]:
    """Yield the reasons why a member cannot be unpacked safely."""
    if entry.flag_bits & 1:
        yield f"{entry.filename[:80]!a} is encrypted"
    if entry.compress_type not in METHODS:
        yield f"{entry.filename[:80]!a} is compressed by method {entry.compress_type}, expected 0 or 8"


class _Careful(io.RawIOBase):
    """A file of which at most ``MOST`` bytes are read at once: a false zip header may ask for any number."""

    MOST = 1 << 26

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if size > self.MOST:
            raise ValueError(f"{size:,} bytes at once")
        return self._file.read(size if size >= 0 else self.MOST)
