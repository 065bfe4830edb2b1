"""The paper's claims and tables beside its official logs and our records, as HTML."""

import pandas as pd

from bench.records.paper import Table, tables
from leaderboard import markup, paper
from leaderboard.markup import Cell, Line

INTRODUCTION = (
    "The tables of “Neural Network Diffusion” (arXiv 2402.13144) as printed, “paper”; what the log files "
    "of its official "
    "repository say where they cover the same setting, “log” (NUS-HPC-AI-Lab/Neural-Network-Diffusion, "
    "commit 0ecca89); "
    "and what the records of this leaderboard measured, “ours”, first. Theirs are one number; ours are "
    "means over seeds. "
    "“best”, “avg.” and “med.” are over the generated models, “original” is the best checkpoint, "
    "“ensemble” the average of "
    "all of them."
)


def numbers() -> list[str]:
    """Return the numbers of the paper's tables."""
    return sorted({name.rstrip("abc") for name in tables()}, key=int)


def claims(runs: pd.DataFrame) -> str:
    """Return the table of claims."""
    heads = ["Claim", "Ours", "Same setting?", "Paper", "Official logs"]
    lines = [
        Line(
            markup.text(one.claim),
            [Cell(markup.text(x)) for x in (one.ours, one.same, one.paper, one.logs)],
        )
        for one in paper.claims(runs)
    ]
    return markup.block(markup.table(heads, lines, "Claims"), f"<p>{INTRODUCTION}</p>")


def table(number: str, runs: pd.DataFrame) -> str:
    """Return one of the paper's tables with all its parts, and the commands that fill what is empty."""
    parts, commands = [], []
    for one in tables().values():
        if one.id.rstrip("abc") == number:
            parts.append(_part(one, runs))
            commands += paper.missing(one, runs)
    if commands:
        lines = "\n".join(f"{command}  # {label}" for label, command in commands)
        said = "<p>Real data: add --data-dir. Three seeds: once each with --seed 0, 1 and 2.</p>"
        title = "Commands that fill what is empty or not at the paper's setting"
        parts.append(markup.folded(title, markup.code(lines) + said))
    return markup.block(*parts)


def _part(one: Table, runs: pd.DataFrame) -> str:
    shown = paper.shown(one, runs)
    heads = [*one.head[1:], *(str(name) for name in shown if name not in one.head)]
    words = {*one.head, "ours: setting"}
    lines = [
        Line(
            markup.text(row[one.head[0]]),
            [Cell(markup.text(row[name]), number=name not in words) for name in heads],
        )
        for row in shown.to_dict("records")
    ]
    note = f"<p>{markup.text(one.note)}</p>" if one.note else ""
    caption = markup.text(f"Table {one.id}. {one.title}")
    return markup.table([one.head[0], *heads], lines, caption) + note
