"""Presets: sets of settings that a name stands for. Imports no torch."""

from collections.abc import Collection

from bench.errors import BadRequest

PRESETS = (
    "quick",
    "paper",
)  # of every task and generator; what they do not declare stays at its default


def known(own: Collection[str]) -> tuple[str, ...]:
    """Return the presets of a generator that declares some: those of all, and those of its own."""
    return (*PRESETS, *(name for name in own if name not in PRESETS))


def expected(own: Collection[str]) -> str:
    """Return in words which presets a generator has.

    >>> expected(["paper", "official"])
    'quick, paper or official'
    """
    *others, last = known(own)
    return f"{', '.join(others)} or {last}"


def check(name: str, own: Collection[str]) -> None:
    """Check that a generator has a preset.

    Raises:
        BadRequest: it has none of this name.
    """
    if name not in known(own):
        raise BadRequest(f"unknown preset '{name}': expected {expected(own)}")
