"""The matrix of vectors in a safetensors file that passes by in blocks, so that neither memory nor disk holds it."""

import json
from collections.abc import Iterator

import numpy as np

from bench.system.data import Settings

MOST = 1 << 20  # bytes of a header


class Vectors:
    """What is looked at while a file passes by: its header, and whether the numbers of ``vectors`` are finite."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._header: Settings | None = None
        self._bad = ""
        self._at = 0  # bytes of tensors that passed
        self._rest = b""  # the beginning of a number that a block ends in
        self._finite = True

    def add(self, block: bytes) -> None:
        """Take in the next part of the file."""
        if self._bad:
            return
        if self._header is None:
            self._begun += block
            block = self._opened()
        if self._header is not None:
            self._look(block)

    def _opened(self) -> bytes:
        """Return the bytes after the header, once it is all there."""
        size = int.from_bytes(self._begun[:8], "little")
        if len(self._begun) >= 8 and size > MOST:
            self._bad = f"a header of {size:,} bytes"
        if self._bad or len(self._begun) < 8 + size:
            return b""
        try:
            header = json.loads(self._begun[8 : 8 + size])
            self._header = header["vectors"]
            begin, end = self._range()
            if not 0 <= begin <= end:
                raise ValueError("offsets")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._bad = f"no readable header: {type(error).__name__} {error}"
        return bytes(self._begun[8 + size :])

    def _range(self) -> tuple[int, int]:
        assert self._header is not None
        begin, end = self._header["data_offsets"]
        return int(begin), int(end)

    def _look(self, block: bytes) -> None:
        begin, end = self._range()
        inside = block[max(0, begin - self._at) : max(0, end - self._at)]
        self._at += len(block)
        if inside and self._header and self._header.get("dtype") == "F32":
            numbers = self._rest + inside
            whole = len(numbers) // 4 * 4
            self._rest = numbers[whole:]
            self._finite &= bool(np.isfinite(np.frombuffer(numbers[:whole], "<f4")).all())

    def problems(self, expected: tuple[int, int]) -> Iterator[str]:
        """List the problems of a matrix of this shape, once the whole file has passed by."""
        if self._header is None or self._bad:
            yield f"is not readable ({self._bad or 'it ends in its header'})"
            return
        shape, kind = self._header.get("shape"), self._header.get("dtype")
        begin, end = self._range()
        if shape != list(expected) or kind != "F32":
            yield f"has vectors of shape {shape} in {kind}, expected {expected} float32"
        elif end - begin != 4 * expected[0] * expected[1] or self._at < end:
            yield "is not readable (it is shorter than its header says)"
        elif not self._finite:
            yield "has values that are not finite"
