"""Files from somebody else: only regular ones, only so large, and of a zip's members no more than was allowed."""

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
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of others a few bytes may unpack to anything
BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, struct.error, RuntimeError, OverflowError,
)  # fmt: skip

# A pipe is opened without waiting for somebody who writes to it; Windows has neither flag or needs the other.
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def content(path: Path, limit: int, what: str) -> bytes:
    """Return all bytes of a file.

    Args:
        path: the file.
        limit: bytes that it may have.
        what: what it is, for messages.

    Raises:
        BadRequest: it is missing, no regular file (a pipe would wait for ever), too large, or cannot be read.
    """
    with opened(path, limit, what) as file:
        return file.read(limit)


def opened(path: Path, limit: int, what: str) -> io.BufferedReader:
    """Return a regular file, open for reading; raises what ``content`` does."""
    try:
        handle = os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        raise BadRequest(f"no {what} at {path}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadRequest(f"cannot read {path}: {reason}") from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        os.close(handle)
        if stat.S_ISDIR(status.st_mode):
            raise BadRequest(f"{path} is a directory, expected a {what}")
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest(f"{path} is no regular file, expected a {what}")
        raise BadRequest(f"{path} has {status.st_size:,} bytes, expected at most {limit:,}")
    return os.fdopen(handle, "rb")


class Archive:
    """A zip whose members are looked at before they are unpacked.

    Args:
        file: the zip.
        limits: bytes that each member may unpack to.

    Raises:
        BadRequest: it is no readable zip.
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
        """List the problems of the members that have a limit, before anything is unpacked."""
        for entry in self.entries:
            limit = limits.get(entry.filename)
            if limit is not None and entry.file_size > limit:
                yield f"{entry.filename} has {entry.file_size:,} bytes, expected at most {limit:,}"
            yield from _locked(entry)

    def blocks(self, name: str, limit: int) -> Iterator[bytes]:
        """Yield a member's content, a block at a time.

        Raises:
            BadRequest: it is damaged, or unpacks to more than the limit, whatever its header says.
        """
        left = limit
        try:
            for problem in _locked(self._zip.getinfo(name)):
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
        """Return a member's whole content; raises what ``blocks`` does."""
        return b"".join(self.blocks(name, limit))


def _locked(entry: zipfile.ZipInfo) -> Iterator[str]:
    """Return the reason why a member cannot be unpacked safely."""
    if entry.flag_bits & 1:
        yield f"{entry.filename[:80]!a} is encrypted"
    if entry.compress_type not in METHODS:
        yield f"{entry.filename[:80]!a} is compressed by method {entry.compress_type}, expected 0 or 8"


class _Careful(io.RawIOBase):
    """A file of which no more is read at once than a zip's list of a few members has."""

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
