"""Checks of single values of a JSON file: their type, and their bounds. Error messages name the entry.

Parameters that several functions share: ``subject`` is the entry, as error messages name it ("annotation 5 of FILE"),
``name`` the key of the value in it.
"""

import reprlib
import unicodedata
from collections.abc import Mapping
from typing import Any

from bench.errors import BadRequest

Content = dict[str, Any]  # one JSON object
Number = int | float
Numbers = list[Number]
LARGEST = (
    2**53
)  # above it, float64 cannot hold every whole number; many programs read JSON numbers as float64


def whole(
    item: Mapping[str, Any], name: str, subject: str, low: int = 0, high: int = LARGEST
) -> int:
    """Return the whole number at a key of an object, from ``low`` to ``high``, both included.

    Raises:
        BadRequest: the value is missing, out of bounds, or no integer (1.0 and true are none).
    """
    value = item.get(name)
    if type(value) is not int:
        raise BadRequest(f"{subject} has {name} {shown(value)}, expected a whole number")
    if not low <= value <= high:
        bounds = f"at least {low}" if value < low else f"at most {high}"
        raise BadRequest(f"{subject} has {name} {shown(value)}, expected {bounds}")
    return value


def number(value: Any, subject: str, name: str) -> Number:
    """Return ``value`` if it is a finite number of at most ``LARGEST`` in magnitude.

    Raises:
        BadRequest: it is not; a text or true is no number.
    """
    if not _are_numbers([value]):
        raise BadRequest(
            f"{subject} has {name} {shown(value)}, expected a finite number, at most 2^53"
        )
    return value  # type: ignore[no-any-return]


def numbers(values: Any, subject: str, name: str) -> Numbers:
    """Return ``values`` if it is a list of numbers that ``number`` would accept.

    Raises:
        BadRequest: it is not.
    """
    if not isinstance(values, list) or not _are_numbers(values):
        raise BadRequest(
            f"{subject} has {name} {shown(values)}, expected a list of finite numbers, at most 2^53"
        )
    return values


def _are_numbers(values: list[Any]) -> bool:
    """Return whether all values are numbers of at most ``LARGEST`` in magnitude; NaN and infinity are not."""
    right_type = {int, float}.issuperset(map(type, values))
    return right_type and all(-LARGEST <= value <= LARGEST for value in values)


def text(value: Any, subject: str, name: str) -> str:
    """Return ``value`` if it is a text that is not blank and has no control characters.

    Such a text can be printed on one line and used in a file's name.

    Raises:
        BadRequest: it is not.
    """
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"{subject} has no {name}, expected a text, not {shown(value)}")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
        raise BadRequest(
            f"{subject} has {name} {shown(value)}, expected a text without control characters"
        )
    return value


def shown(value: Any) -> str:
    """Return a value as it stands in an error message: on one line, shortened if it is long or deeply nested."""
    return reprlib.repr(value)
