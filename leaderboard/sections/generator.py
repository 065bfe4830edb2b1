"""One generator as HTML: what it is, its cells of the matrix, its ablations, and its records."""

import json

import pandas as pd

from bench.records import described
from leaderboard import boards, markup, variants
from leaderboard.formats import UNKNOWN, times
from leaderboard.markup import Cell, Line, Links
from leaderboard.matrix import Difference, Entry, Matrix, Summary

SEES = {
    "score": "scores of its own models on the training split",
    "train": "training its models a few more steps",
}


def card(name: str, m: Matrix, runs: pd.DataFrame) -> str:
    """Return what a generator is, in facts.

    Args:
        name: its name.
        m: the matrix.
        runs: its runs, at least one.
    """
    newest = runs.sort_values("created").iloc[-1]
    one, told = Summary.of(m.of(name)), described.about(name)
    uses = sorted({use for text in runs["uses"] for use in json.loads(text)})
    pairs = {
        "What it is": markup.text(told or "not installed here, so its own words are not known"),
        "What it sees": markup.text(
            ", ".join(["checkpoints", *(SEES.get(use, use) for use in uses)])
        ),
        "Run on": f"{one.families} of {len(m.families)} families of boards, {len(runs):,} records",
        "Against copy": one.copy.words,
        "Against the strongest control": one.control.words,
        "Cheaper than SGD over 100 models": UNKNOWN
        if one.cost is None
        else f"{times(one.cost)} (median)",
        "Newest code": markup.text(newest["source"]),
        "Newest settings": markup.text(newest["hyperparameters"]),
    }
    return markup.block(markup.facts(pairs))


def across(name: str, m: Matrix, links: Links) -> str:
    """Return its cells of the matrix, one row a family of boards; and families on which it was not run."""
    heads = ["Board", "Verdict", "Made of", "Mean", "Minus training", "Variety", "Minus copy", "Minus control",
             "Control",
             "100 models"]  # fmt: skip
    lines = [
        _line(entry, f"{m.families[place].title}, {m.families[place].regime.lower()}", links)
        for (generator, place), entry in m.entries.items()
        if generator == name
    ]
    return markup.block(markup.table(heads, lines)) if lines else ""


def _line(entry: Entry, title: str, links: Links) -> Line:
    of = entry.scale.difference
    texts = [
        entry.scale.text(entry.score),
        UNKNOWN if entry.quality is None else of(entry.quality),
        UNKNOWN if entry.variety is None else f"{entry.variety:.2f}",
        _difference(entry.copy, entry),
        _difference(entry.control, entry),
        entry.named.replace("-", " ") or UNKNOWN,
        UNKNOWN if entry.cost is None else times(entry.cost),
    ]
    made_of = markup.bar(entry.shares) if entry.shares else UNKNOWN
    cells = [Cell(markup.text(entry.verdict or UNKNOWN)), Cell(made_of)]
    address = links.to("board", str(entry.board["board"]), row=entry.row)
    return Line(
        markup.link(title, address),
        [*cells, *(Cell(markup.text(one), number=True) for one in texts)],
    )


def _difference(found: Difference | None, entry: Entry) -> str:
    return UNKNOWN if found is None else f"{found.sign} {entry.scale.difference(found.value)}"


def records(runs: pd.DataFrame, links: Links) -> str:
    """Return a table of a generator's records: every board and variant with its seeds.

    Args:
        runs: its runs.
        links: addresses of other pages.
    """
    titles = boards.titles(boards.boards(runs))
    named = runs.assign(variant=variants.names(runs), title=runs["board"].map(titles))
    lines = []
    for (title, variant), own in named.groupby(["title", "variant"], sort=True):
        seeds = ", ".join(
            markup.link(str(run.seed), links.to("record", str(run.id)))
            for run in own.sort_values("seed").itertuples()
        )
        tier = markup.text(", ".join(sorted(set(own["tier"]))))
        cells = [
            Cell(markup.link(str(title), links.to("board", str(own["board"].iloc[0])))),
            Cell(seeds),
            Cell(tier),
        ]
        lines.append(Line(markup.text(variant), cells))
    return markup.block(markup.table(["Variant", "Board", "Records, by seed", "Checked"], lines))


def listed(m: Matrix, runs: pd.DataFrame, links: Links) -> str:
    """Return a list of all generators, those of the matrix first, with their words about themselves."""
    others = [name for name in sorted(set(runs["generator"])) if name not in m.generators]
    items = "".join(
        f"<li>{markup.link(name, links.to('generator', name))} {markup.text(described.about(name))}</li>"
        for name in (*m.generators, *others)
    )
    return markup.block(f"<ul>{items}</ul>")
