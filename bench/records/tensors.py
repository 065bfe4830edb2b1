"""Check of the matrix ``vectors`` in a safetensors file, read in blocks, so that neither memory nor disk holds it."""

import json
from collections.abc import Iterator

import numpy as np

from bench.system.data import Settings

MOST = 1 << 20  # largest size of a header in bytes


class Vectors:
    """The state of the check: the header, and whether all numbers of ``vectors`` were finite so far."""

    def __init__(self) -> None:
        self._start = bytearray()
        self._header: Settings | None = None
        self._problem = ""
        self._at = 0  # bytes of tensors that were checked
        self._rest = b""  # the last 0 to 3 bytes of a block, which begin a number
        self._finite = True

    def add(self, block: bytes) -> None:
        """Check the next block of the file."""
        if self._problem:
            return
        if self._header is None:
            self._start += block
            block = self._read_header()
        if self._header is not None:
            self._check_block(block)

    def _read_header(self) -> bytes:
        """Return the bytes that follow the header, once the header is complete; before that none."""
        size = int.from_bytes(self._start[:8], "little")
        if len(self._start) >= 8 and size > MOST:
            self._problem = f"a header of {size:,} bytes"
        if self._problem or len(self._start) < 8 + size:
            return b""
        try:
            header = json.loads(self._start[8 : 8 + size])
            self._header = header["vectors"]
            begin, end = self._range()
            if not 0 <= begin <= end:
                raise ValueError("offsets")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._problem = f"no readable header: {type(error).__name__} {error}"
        return bytes(self._start[8 + size :])

    def _range(self) -> tuple[int, int]:
        assert self._header is not None
        begin, end = self._header["data_offsets"]
        return int(begin), int(end)

    def _check_block(self, block: bytes) -> None:
        begin, end = self._range()
        inside = block[max(0, begin - self._at) : max(0, end - self._at)]
        self._at += len(block)
        if inside and self._header and self._header.get("dtype") == "F32":
            numbers = self._rest + inside
            whole = len(numbers) // 4 * 4
            self._rest = numbers[whole:]
            self._finite &= bool(np.isfinite(np.frombuffer(numbers[:whole], "<f4")).all())

    def problems(self, expected: tuple[int, int]) -> Iterator[str]:
        """Yield the problems of the matrix, which should have this shape, after the last block."""
        if self._header is None or self._problem:
            yield f"is not readable ({self._problem or 'it ends in its header'})"
            return
        shape, kind = self._header.get("shape"), self._header.get("dtype")
        begin, end = self._range()
        if shape != list(expected) or kind != "F32":
            yield f"has vectors of shape {shape} in {kind}, expected {expected} float32"
        elif end - begin != 4 * expected[0] * expected[1] or self._at < end:
            yield "is not readable (it is shorter than its header says)"
        elif not self._finite:
            yield "has values that are not finite"
