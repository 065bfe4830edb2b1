"""Single values of a JSON file, checked: of the right type, finite and within bounds. The messages name the entry."""

import reprlib
import unicodedata
from collections.abc import Mapping
from typing import Any

from bench.errors import BadRequest

Content = dict[str, Any]  # one JSON object
Number = int | float
Numbers = list[Number]
LARGEST = 2**53  # beyond it float64, which many programs keep JSON's numbers in, has gaps


def whole(item: Mapping[str, Any], name: str, what: str, low: int = 0, high: int = LARGEST) -> int:
    """Return a whole number within these bounds, both included.

    Args:
        item: the object that has it.
        name: its key.
        what: the object, for messages.

    Raises:
        BadRequest: it is not there, of another type (1.0 and true are), or outside.
    """
    value = item.get(name)
    if type(value) is not int:
        raise BadRequest(f"{what} has {name} {shown(value)}, expected a whole number")
    if not low <= value <= high:
        bounds = f"at least {low}" if value < low else f"at most {high}"
        raise BadRequest(f"{what} has {name} {shown(value)}, expected {bounds}")
    return value


def number(value: Any, what: str, name: str) -> Number:
    """Return a finite number no larger than ``LARGEST``.

    Raises:
        BadRequest: it is none; a text or true are none.
    """
    if not _are_numbers([value]):
        raise BadRequest(
            f"{what} has {name} {shown(value)}, expected a finite number, at most 2^53"
        )
    return value  # type: ignore[no-any-return]


def numbers(values: Any, what: str, name: str) -> Numbers:
    """Return a list of such numbers.

    Raises:
        BadRequest: it is no list, or holds something else.
    """
    if not isinstance(values, list) or not _are_numbers(values):
        raise BadRequest(
            f"{what} has {name} {shown(values)}, expected a list of finite numbers, at most 2^53"
        )
    return values


def _are_numbers(values: list[Any]) -> bool:
    """Return whether all are: NaN and infinity are outside the bounds, as are whole numbers too long for a float."""
    typed = {int, float}.issuperset(map(type, values))
    return typed and all(-LARGEST <= value <= LARGEST for value in values)


def text(value: Any, what: str, name: str) -> str:
    """Return a text that can be printed on one line and used in a file's name.

    Raises:
        BadRequest: it is none, is blank, or has control characters.
    """
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"{what} has no {name}, expected a text, not {shown(value)}")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
        raise BadRequest(
            f"{what} has {name} {shown(value)}, expected a text without control characters"
        )
    return value


def shown(value: Any) -> str:
    """Write a value for a message: on one line, shortened, however long or deep it is."""
    return reprlib.repr(value)
