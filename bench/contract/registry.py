"""The data sets and architectures of installed packages, the suite's own among them, by name. Imports no torch.

A package registers its own through entry points of the groups ``bench.data_sets`` and ``bench.architectures``. The
value of an entry point is a light module with a mapping ``DATA_SETS`` or ``ARCHITECTURES``, or ``module:object`` with a
single declaration.
"""

from collections.abc import Mapping
from typing import TypeVar

from bench.contract.declarations import Architecture, DataSet, Declaration, imported
from bench.errors import BadRequest
from bench.system import entry_points
from bench.system.entry_points import Entry, Named

D = TypeVar("D", bound=Declaration)


def data_sets() -> Named[DataSet]:
    """Return all data sets that are registered."""
    return entry_points.named("bench.data_sets", lambda entry: _read(entry, "DATA_SETS", DataSet))


def architectures() -> Named[Architecture]:
    """Return all architectures that are registered."""
    return entry_points.named(
        "bench.architectures", lambda entry: _read(entry, "ARCHITECTURES", Architecture)
    )


def data_set(name: str, form: str) -> DataSet:
    """Return the registered data set of a name and form.

    Raises:
        BadRequest: no such data set; the message offers the nearest name.
    """
    return _of_form(data_sets(), form).find("data set", name)


def with_sources(data_set: DataSet) -> tuple[DataSet, ...]:
    """Return a data set, followed by the data sets that it is derived from."""
    source = data_sets().get(data_set.source) if data_set.source else None
    return (data_set, *(with_sources(source) if source else ()))


def architecture(name: str, form: str) -> Architecture:
    """Return the registered architecture of a name and form.

    Raises:
        BadRequest: no such architecture; the message offers the nearest name.
    """
    return _of_form(architectures(), form).find("architecture", name)


def _of_form(declared: Named[D], form: str) -> Named[D]:
    fitting = {name: one for name, one in declared.items() if one.form == form}
    return Named(fitting, declared.broken)


def _read(entry: Entry, mapping: str, kind: type[D]) -> Mapping[str, D]:
    """Return the declarations of an entry point, by name."""
    if not entry.single:
        return {one.name: one for one in entry_points.table(entry, mapping, kind).values()}
    one = imported(entry.value)
    if not isinstance(one, kind):
        raise BadRequest(f"{entry.value} is no {kind.__name__}")
    return {one.name: one}
