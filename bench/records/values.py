"""Values of settings: as plain data, as text on a command line, and as a record holds them."""

import enum
import json
import math
from collections.abc import Mapping
from pathlib import Path

from bench.errors import BadRequest
from bench.system.data import Json

LARGEST = 2**53  # largest whole number that every reader of JSON keeps exactly


def plain(value: object, name: str = "a setting") -> Json:
    """Return a value as plain data: numbers, texts, lists and mappings of them; paths and enumerations become texts.

    Raises:
        BadRequest: the value is of another type, a whole number beyond 2^53, or a text that is no valid Unicode.
    """
    match value:
        case enum.Enum():
            return plain(value.value, name)
        case None | bool() | float():
            return value
        case int() if abs(value) <= LARGEST:
            return value
        case str() | Path() if str(value).isascii() or _valid(str(value)):
            return str(value)
        case Mapping():
            return {str(key): plain(part, f"{name}.{key}") for key, part in value.items()}
        case list() | tuple():
            return [plain(part, f"{name}.{index}") for index, part in enumerate(value)]
        case set() | frozenset():
            return sorted((plain(part, name) for part in value), key=repr)
    raise BadRequest(
        f"{name} is {ascii(value)[:60]}, expected a number, a text, or a list or mapping of them"
    )


def _valid(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def recorded(value: Json) -> Json:
    """Return plain data with each number that is not finite as text, as a record holds it.

    >>> recorded([0.5, float("-inf")])
    [0.5, '-inf']
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: recorded(part) for name, part in value.items()}
    return [recorded(part) for part in value] if isinstance(value, list) else value


def canonical(value: Json) -> str:
    """Return plain data as canonical JSON: keys sorted, whole numbers without a point.

    >>> canonical({"b": 1.0, "a": [True, 0.5]})
    '{"a": [true, 0.5], "b": 1}'
    """
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _whole(part) for name, part in value.items()}
    return [_whole(part) for part in value] if isinstance(value, list | tuple) else value


def parsed(text: str) -> Json:
    """Return the value of a text on the command line: JSON, True, False or None as in Python, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {"True": True, "False": False, "None": None}.get(text, text)


def written(value: Json) -> str:
    """Return the text on a command line from which ``parsed`` gives this value.

    >>> written("adam"), written("2"), written([1, 0.5]), written(float("inf"))
    ('adam', '"2"', '[1, 0.5]', 'Infinity')
    """
    if isinstance(value, str) and isinstance(parsed(value), str) and parsed(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
