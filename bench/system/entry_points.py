"""Reader of the entry points of installed packages; a broken one costs a warning, never the command.

The value of an entry point is ``module:Name`` for one thing, or a module or package that declares several. The reader
of a group turns an entry into named values; ``named`` puts those of all packages together, the suite's own first.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from bench.errors import BadRequest, printable, unknown

SUITE = "pgen-bench"  # the suite's own distribution, whose names win
V = TypeVar("V")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry point.

    Attributes:
        name: the name that it is registered under.
        value: ``module:Name``, or a module or package that declares several things.
        package: the distribution that registers it; empty where that is not known.
    """

    name: str
    value: str
    package: str

    @property
    def single(self) -> bool:
        """Whether the entry point names one object, not a module that declares several."""
        return ":" in self.value

    @property
    def origin(self) -> str:
        """The distribution that registers the entry point, in words."""
        return f"of the package {self.package}" if self.package else "of an unknown package"


class Named(Mapping[str, V]):
    """The values that the entry points of a group declare, by name.

    Attributes:
        broken: one line for each entry point or name that is left out.
    """

    def __init__(self, values: Mapping[str, V], broken: tuple[str, ...] = ()) -> None:
        self._values, self.broken = values, broken

    def __getitem__(self, name: str) -> V:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def find(self, kind: str, name: str) -> V:
        """Return the value of a name.

        Args:
            kind: a word for the kind of value, for the message.
            name: of the value.

        Raises:
            BadRequest: no such name; the message offers the nearest one, and lists broken entry points.
        """
        if name in self:
            return self[name]
        raise BadRequest("; ".join([str(unknown(kind, name, self)), *self.broken]))


def entries(group: str) -> tuple[Entry, ...]:
    """Return the entry points of a group, the suite's own first."""
    return _entries(group, tuple(sys.path))


def named(group: str, read: Callable[[Entry], Mapping[str, V]]) -> Named[V]:
    """Collect the values that the entry points of a group declare; of two values of one name the first is kept.

    Args:
        group: the group's name, such as ``bench.tasks``.
        read: returns the values that one entry declares, by name; an entry for which it raises counts as broken.
    """
    values: dict[str, V] = {}
    broken = []
    for entry in entries(group):
        try:
            declared = dict(read(entry))
        except (Exception, SystemExit) as error:  # modules of other packages may raise anything
            broken.append(_line(entry, f"cannot be read ({_reason(error)})"))
            continue
        broken += [
            _line(entry, f"is left out: '{name}' is taken") for name in declared if name in values
        ]
        values |= {name: value for name, value in declared.items() if name not in values}
    return Named(values, tuple(broken))


def table(entry: Entry, attribute: str, kind: type[V]) -> dict[str, V]:
    """Import the module that an entry names, and return its mapping of names to values.

    Args:
        entry: an entry point that names a module.
        attribute: the name of the mapping in the module, such as ``TASKS``.
        kind: the type of every value.

    Raises:
        BadRequest: the module has no such mapping, or a value has another type.
    """
    values = getattr(importlib.import_module(entry.value), attribute, None)
    if not isinstance(values, Mapping):
        raise BadRequest(f"{entry.value} has no mapping {attribute}")
    for name, value in values.items():
        if not isinstance(name, str) or not isinstance(value, kind):
            raise BadRequest(f"{attribute}[{name!r}] of {entry.value} is no {kind.__name__}")
    return dict(values)


@functools.cache  # looking through all installed packages takes a while
def _entries(group: str, path: tuple[str, ...]) -> tuple[Entry, ...]:
    """Read the entry points of a group for one ``sys.path``."""
    registered = [
        Entry(entry.name, entry.value, entry.dist.name if entry.dist else "")
        for entry in importlib.metadata.entry_points(group=group)
    ]
    return tuple(sorted(registered, key=lambda entry: entry.package != SUITE))


def _line(entry: Entry, what: str) -> str:
    return f"the entry point '{entry.name}' {entry.origin} {what}"


def _reason(error: BaseException) -> str:
    text = str(error) if isinstance(error, BadRequest) else f"{type(error).__name__}: {error}"
    return printable(text)[:300]
