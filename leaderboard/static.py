"""The leaderboard as plain files: ``python -m bench leaderboard --static FOLDER``.

Overview, boards, generators, records, the paper's tables and the methods are HTML that needs no server, no network and
no script to be read. They are made by the functions that make the application's pages. Charts of boards need a script,
Plotly's own, which lies beside them.
"""

import functools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import plotly.offline

from leaderboard import boards, load, markup, opened, outcomes, plots, present, table
from leaderboard.columns import OPENING
from leaderboard.markup import Links
from leaderboard.matrix import Matrix, Read, matrix
from leaderboard.opened import Shown
from leaderboard.sections import board as board_section
from leaderboard.sections import generator, methods, overview, record, reproduction

LINKS = Links(files=True)
SHIPPED = Path(__file__).with_name("results")
PLOTLY = "plotly.js"
MODELS = 100  # that the chart of quality and cost counts
PAGES = {
    "overview": "Overview",
    "generator": "Generators",
    "reproduction": "Reproduction",
    "methods": "Methods",
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,"><style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif }}
body {{ max-width: 1180px; margin: 0 auto; padding: 1rem; background: light-dark(#ffffff, #14171c);
  color: light-dark(#1f2430, #e4e7ec) }}
.chart {{ background: #ffffff; border-radius: 6px; margin: .5rem 0 }}
{style}</style></head><body><nav class="lb">{navigation}</nav><main>{heading}{body}</main></body></html>
"""
CHART = """<figure><div class="chart" id="{id}"></div><figcaption class="lb">{said}</figcaption></figure>
<script>Plotly.newPlot("{id}", {figure}.data, {figure}.layout, {{responsive: true}})</script>"""


def page(title: str, body: str) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: HTML below the title.
    """
    navigation = " · ".join(markup.link(label, LINKS.to(name)) for name, label in PAGES.items())
    heading = markup.title(title)
    return PAGE.format(
        title=markup.text(title),
        style=markup.STYLE,
        navigation=navigation,
        heading=heading,
        body=body,
    )


def pages(runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield the name and the content of every file but Plotly's.

    Args:
        runs: the table of runs, at least one.
    """
    read = functools.cache(lambda path: opened.open_record(Path(path)))
    m, titles = matrix(runs, read), boards.titles(boards.boards(runs))
    files = overview.exports(m)
    links = " · ".join(
        markup.link(f"Matrix as {label}", file) for label, (_, file, _) in files.items()
    )
    yield (
        LINKS.file("overview"),
        page(overview.TITLE, overview.page(m, runs, LINKS) + markup.block(links)),
    )
    yield from ((file, content) for content, file, _ in files.values())
    yield LINKS.file("methods"), page("Methods", methods.page())
    yield LINKS.file("generator"), page("Generators", generator.listed(m, runs, LINKS))
    tables = "".join(reproduction.table(number, runs) for number in reproduction.numbers())
    yield LINKS.file("reproduction"), page("Reproduction", reproduction.claims(runs) + tables)
    for board in boards.records(boards.boards(runs)):
        name = str(board["board"])
        body = board_page(board, runs[runs["board"] == name], read)
        yield LINKS.file("board", name), page(titles[name], body)
    for name in sorted(set(runs["generator"])):
        body = generator_page(name, m, runs[runs["generator"] == name])
        yield LINKS.file("generator", name), page(name, body)
    for row in boards.records(runs):
        title = f"{row['generator']} on {row['task']}, seed {row['seed']}"
        body = record_page(read(row["path"]), str(row["board"]), titles[row["board"]])
        yield LINKS.file("record", str(row["id"])), page(title, body)


def generator_page(name: str, m: Matrix, own: pd.DataFrame) -> str:
    """Return the page of a generator below its title."""
    return (
        generator.card(name, m, own)
        + generator.across(name, m, LINKS)
        + generator.records(own, LINKS)
    )


def record_page(shown: Shown, board: str, title: str) -> str:
    """Return the page of a record below its title."""
    one = shown.record
    head = record.head(one, board, title, LINKS)
    return head + record.numbers(one) + record.scores(one) + record.judged(one) + record.rest(one)


def board_page(board: dict[str, object], runs: pd.DataFrame, read: Read) -> str:
    """Return the page of a board below its title: the table, every row's details, and charts.

    Args:
        board: a row of ``boards.boards``.
        runs: its runs.
        read: reads a record with its side file.
    """
    newest, scale = runs.sort_values("created").iloc[-1], boards.scale(board)
    names = table.row_names(runs)
    rows = outcomes.rows_of(
        [(name, read(path)) for name, path in zip(names, runs["path"], strict=True)],
        str(newest["id"]),
    )
    found = outcomes.compare(rows, "mean")
    every = table.at_draws(table.rows(runs, read(newest["path"]).record), found.values, found.drawn)
    full = table.ordered(every, "mean", bool(board["higher_is_better"]), found.groups)
    said = (
        board_section.result(board_section.shown(full), "mean", scale),
        board_section.description(board),
    )
    own = dict(tuple(runs.groupby(pd.Series(names, index=runs.index))))
    folded = [
        markup.folded(
            str(row["generator"]), board_section.details(str(row["row"]), own[row["row"]], LINKS)
        )
        for _, row in full.iterrows()
        if row["runs"]
    ]
    return "".join(
        (
            markup.block(*(f"<p>{markup.text(line)}</p>" for line in said)),
            board_section.rows(
                board_section.shown(full), OPENING, scale, str(board["board"]), LINKS
            ),
            markup.block(
                markup.folded(
                    "Every row",
                    board_section.rows(full, OPENING, scale, str(board["board"]), LINKS),
                )
            ),
            markup.block(
                *(f"<p>{markup.text(note)}</p>" for note in present.notes("mean", full, found, ""))
            ),
            markup.block("<h2>What repeats each row</h2>", *folded),
            charts(board_section.drawn(full, runs, read)),
        )
    )


def charts(shown: Sequence[Shown]) -> str:
    """Return charts of a board's generators, one run each; empty where there are none."""
    if not shown:
        return ""
    figures = {
        "cost": (
            plots.quality_and_cost(shown, MODELS),
            f"Mean score against the seconds of {MODELS} models in all.",
        ),
        "nearness": (
            plots.score_against_similarity(shown),
            "Every model's score against its nearness to a checkpoint.",
        ),
        "four": (
            plots.four_comparisons(shown),
            "Mean similarities of pairs of models, with 95 % intervals.",
        ),
    }
    parts = []
    for name, (figure, said) in figures.items():
        # "</" would end the script, whatever text a record has.
        text = json.dumps(json.loads(figure.to_json())).replace("<", "\\u003c")
        parts.append(CHART.format(id=name, said=said, figure=f"({text})"))
    return f'<script src="{PLOTLY}"></script>' + "".join(parts)


def write(folder: Path, results: Sequence[Path]) -> int:
    """Write all pages into a folder, and return how many files there are.

    Args:
        folder: made where it is missing; files of the same names are replaced.
        results: folders of records.
    """
    runs, broken = load.load(results)
    folder.mkdir(parents=True, exist_ok=True)
    for item in broken:
        print(f"left out: {item.path}: {item.reason}", file=sys.stderr)
    if runs.empty:
        _write(
            folder / LINKS.file("overview"),
            page(overview.TITLE, "<p>There are no records here yet.</p>"),
        )
        return 1
    _write(folder / PLOTLY, plotly.offline.get_plotlyjs())
    count = 1
    for name, content in pages(runs):
        _write(folder / name, content)
        count += 1
    return count


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8", newline="\n")


def main() -> None:
    """Write the shipped records, and those of further folders, into the folder that is named first."""
    folder, *results = map(Path, sys.argv[1:])
    shipped = [SHIPPED] if SHIPPED.is_dir() else []
    count = write(folder, [*shipped, *results])
    print(f"{folder / LINKS.file('overview')}: {count:,} files")


if __name__ == "__main__":
    main()
