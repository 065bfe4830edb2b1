"""The picture of docs/verdict.md, from a record: ``python -m tests.made_of RECORD docs/verdict.svg``.

A bar for every population that was judged: its shares of new models, copies, averages and broken ones.
"""

import html
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.records.judged import KINDS
from bench.records.record import Record
from leaderboard.columns import GENERATED, populations
from leaderboard.plots import MADE_OF

LEFT, WIDTH, LINE = 150, 480, 20  # pixels: of the names, of a whole bar, and of a line
STYLE = "font-family: sans-serif; font-size: 12px; fill: #6b7280"


def picture(record: Record) -> str:
    """The picture as SVG, the generated models first."""
    judged = record.judge.against_reference
    names = [name for name in (GENERATED, *populations(record)) if name in judged]
    lines = list(_legend())
    for number, name in enumerate(names, 1):
        label = record.generator.name if name == GENERATED else name
        lines += _bar(number * LINE + 10, label, judged[name].composition.shares)
    height = (len(names) + 1) * LINE + 14
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 10}" height="{height}" style="{STYLE}">'
    return "\n".join([head, *lines, "</svg>", ""])


def _legend() -> Iterator[str]:
    for number, kind in enumerate(KINDS):
        x = LEFT + 100 * number
        yield f'<rect x="{x}" y="6" width="12" height="12" fill="{MADE_OF[kind]}"/>'
        yield f'<text x="{x + 18}" y="16">{kind}</text>'


def _bar(y: int, label: str, shares: dict[str, float]) -> Iterator[str]:
    yield f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{html.escape(label)}</text>'
    x = float(LEFT)
    for kind, share in shares.items():
        if share > 0:
            yield (
                f'<rect x="{x:.1f}" y="{y}" width="{WIDTH * share:.1f}" height="{LINE - 5}" '
                f'fill="{MADE_OF[kind]}"/>'
            )
        x += WIDTH * share


if __name__ == "__main__":
    record, file = map(Path, sys.argv[1:])
    file.write_text(picture(Record.read(record)))
