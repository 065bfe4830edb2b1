"""Checks of the versions of a record's numbers, and of what is withdrawn."""

from collections.abc import Iterator

from bench.records import versions
from bench.records.checks.case import Case, mismatch


def problems(case: Case) -> Iterator[str]:
    """Yield a problem for each version that there never was, and for a record whose scores are withdrawn."""
    for name, version in case.record.versions.items():
        newest = versions.CURRENT.get(name)
        if newest is None:
            yield f"versions.{name}: there is no such number, expected one of {', '.join(versions.CURRENT)}"
        elif version > newest:
            yield mismatch(f"versions.{name}", version, f"at most {newest}")
    reason = versions.withdrawn(case.record).get(versions.SCORES)
    if reason:
        metric = case.record.task.metric
        yield f"task.metric: version {metric.version} of {metric.name} is withdrawn: {reason}"
