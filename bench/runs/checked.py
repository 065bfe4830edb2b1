"""Checks of a record's fields: their names, groups, and the tier that follows from them."""

import dataclasses
from collections.abc import Sequence

from bench.records.fields import Tier


@dataclasses.dataclass(frozen=True)
class Check:
    """The check of one field of a record.

    Attributes:
        field: its dotted name.
        problem: what does not agree; empty where it does.
    """

    field: str
    problem: str = ""


def tier(checks: Sequence[Check], *, from_seed: bool) -> Tier:
    """Return the tier that checks justify: "claimed" if any field disagrees."""
    if any(check.problem for check in checks):
        return "claimed"
    return "regenerated" if from_seed else "rescored"


def grouped(checks: Sequence[Check]) -> dict[str, list[Check]]:
    """Group checks by the first two parts of their names, so that a list of values takes one line."""
    groups: dict[str, list[Check]] = {}
    for check in checks:
        groups.setdefault(".".join(check.field.split(".")[:2]), []).append(check)
    return groups
