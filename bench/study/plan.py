"""The plan of a study, before anything starts: its runs, their stages, and estimates of time and disk space."""

import dataclasses
import os
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.records.request import Request
from bench.study.graph import Node
from bench.study.past import Estimate, Past, longest
from bench.study.view import duration, unbroken

WORDS = {
    "base": "networks trained that several zoos start from",
    "collect": "zoos collected",
    "controls": "originals and controls scored",
    "fit": "generators fitted and sampled",
    "record": "generated models scored, compared and recorded",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The work that a study would do.

    Attributes:
        asked, left: the study's runs, and those without a record.
        nodes: the stages of the runs without a record.
    """

    asked: Sequence[Request]
    left: Sequence[Request]
    nodes: Sequence[Node]


def render(plan: Plan) -> RenderableType:
    """Render the plan as a table, followed by a command for every run without a record."""
    past = Past()
    estimates = {node.id: past.estimate(node) for node in plan.nodes}
    table = Table(box=None, header_style="bold")
    for name in ("stage", "how many", "for runs", "about", "disk", "estimated by"):
        table.add_column(name, justify="left" if name in ("stage", "estimated by") else "right")
    for kind, words in WORDS.items():
        of_kind = [estimates[node.id] for node in plan.nodes if node.kind == kind]
        if of_kind:
            seconds, written = sum(e.seconds for e in of_kind), sum(e.written for e in of_kind)
            row = [str(len(of_kind)), str(len(plan.left)), duration(seconds), size(written)]
            table.add_row(words, *row, _source(of_kind))
    done = len(plan.asked) - len(plan.left)
    return Group(
        Text(f"{len(plan.asked)} runs, {done} of them recorded already", style="bold"),
        table,
        Text(_total(plan, estimates)),
        unbroken(["", *(request.asked.command for request in plan.left)]),
    )


def _total(plan: Plan, estimates: dict[str, Estimate]) -> str:
    """Return a sentence with the total time of all stages, in sequence and in parallel on this machine."""
    if not plan.nodes:
        return "nothing is left to do"
    seconds = {name: estimate.seconds for name, estimate in estimates.items()}
    total, written = sum(seconds.values()), sum(e.written for e in estimates.values())
    cores = (os.cpu_count() or 1) // max(node.needs.cpus for node in plan.nodes)
    together = 1 if plan.nodes[0].request.device == "cuda" else max(1, cores)
    wall = max(total / together, longest(plan.nodes, seconds))
    return (
        f"about {duration(total)} of work, {duration(wall)} with {together} at once, and {size(written)} of disk; "
        "estimates, not promises"
    )


def _source(estimates: Sequence[Estimate]) -> str:
    measured = sum(estimate.measured for estimate in estimates)
    if measured == len(estimates):
        return "earlier runs"
    return f"rule of thumb, {measured} by earlier runs" if measured else "rule of thumb"


def size(count: float) -> str:
    """Format a number of bytes with its unit.

    >>> size(1500.0), size(2.34e6), size(7.2e9)
    ('1.5 kB', '2.3 MB', '7.2 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.1f} kB"
