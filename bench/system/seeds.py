"""Seeds of random numbers, one for each purpose. Imports no torch."""

import hashlib


def number(seed: int, *purpose: str | int) -> int:
    """Return the seed (63 bits) of one purpose of a base seed, independent of those of every other purpose."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
