"""The suite's exceptions. Their messages say what was wrong, what was expected and what to do."""

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

LINE = 1000  # characters of a line for people


class BenchError(Exception):
    """A failure while doing what was asked for (exit code 1); its message is one line, whatever names are in it."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


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


def line(text: str, most: int = LINE) -> str:
    """Return a text as one line of printable characters, at most ``most`` of them and an ellipsis."""
    shown = printable(text)
    return shown if len(shown) <= most else f"{shown[:most]}..."


def unexpected(error: BaseException) -> str:
    """Return one line on an error of a kind that nobody foresaw: its type, its text, and the file and line it is from.

    Of all places that it passed through, the last one outside of installed libraries is named: in somebody's plugin, or
    in the suite.
    """
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):  # which names its own place
        return line(text)
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename[0] != "<"]
    installed = tuple(sysconfig.get_paths().values())
    own = [one for one in frames if not one.filename.startswith(installed)] or frames
    return line(f"{text} ({own[-1].filename}, line {own[-1].lineno})" if own else text)


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
