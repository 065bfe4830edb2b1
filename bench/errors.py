"""The suite's exceptions. Their messages say what was wrong, what was expected and what to do."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class BenchError(Exception):
    """A failure while doing what was asked for (exit code 1)."""

    exit_code = 1


class BadRequest(BenchError):
    """The request itself cannot be met: an unknown name, a bad value or an unusable file (exit code 2)."""

    exit_code = 2


def printable(text: str) -> str:
    r"""Return text as one line, with unprintable characters (control, direction, lone surrogate) escaped.

    >>> printable("a\nb")
    'a\\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def unknown(kind: str, name: str, valid: Iterable[str]) -> BadRequest:
    """Return the error for a name that is not among the valid ones; its message offers the nearest name."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else "valid names: " + ", ".join(names)
    return BadRequest(f"unknown {kind} '{name}': {hint}")


def no_zoo(path: Path, error: Exception | None = None) -> BadRequest:
    """Return the error for a file that holds no zoo; its message gives the reason if reading raised ``error``."""
    if isinstance(error, FileNotFoundError):
        return BadRequest(f"no zoo at {path}: make one with 'python -m bench collect'")
    why = f" ({type(error).__name__}: {error})" if error else ""
    return BadRequest(f"{path} is not a readable zoo{why}: collect or import it again")
