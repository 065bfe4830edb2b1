"""One board as HTML: what it is, its rows, and one row's details."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.records.judged import KINDS
from bench.records.scale import Scale
from leaderboard import boards, markup, present
from leaderboard.columns import NAMED, ORIGINAL, REFERENCE
from leaderboard.formats import UNKNOWN
from leaderboard.markup import Cell, Html, Line, Links
from leaderboard.opened import Shown
from leaderboard.plots import colour
from leaderboard.table import CONTROL_RUN

MOST = 200  # boards in a list
DRAWN = 8  # generators in a figure
FOLDED = ("noise",)  # controls of many rows, which a table shows only where every row is asked for
NAMES = {ORIGINAL: "checkpoints", REFERENCE: "held-out training"}


def description(board: Mapping[str, Any]) -> str:
    """Return a sentence on the facts that all rows of a board share, as plain text."""
    better = "higher" if board["higher_is_better"] else "lower"
    how = "" if board["scoring"] == "{}" else f", scored with {board['scoring']}"
    return (
        f"{board['k']:,} checkpoints ({board['track']}), {board['d']:,} parameters generated, {board['samples']:,} "
        f"samples. Scores are {board['metric']} ({better} is better) on {board['val_size']:,} validation examples; "
        f"selected on {board['train_size']:,} training examples{how}. Key {board['key']}."
    )


def result(full: pd.DataFrame, by: str, scale: Scale) -> str:
    """Return one sentence on who is ahead, as plain text; empty where no generator has a value."""
    column = NAMED[by]
    known = full[full[column.names[0]].notna()]
    own = known[known["kind"] == "generator"]
    if own.empty:
        return ""
    first, best = own.iloc[0], known.iloc[0]
    said = f"{first['generator']} is first of {len(own)} generators by {column.label} ({_value(first, by, scale)}"
    said += f", group {first['group']})" if pd.notna(first["group"]) else ")"
    if best["row"] == first["row"]:
        return f"{said}, and the first of all rows."
    other = NAMES.get(best["generator"], best["generator"])
    group = f", group {best['group']}" if pd.notna(best["group"]) else ""
    return f"{said}; the first of all rows is {other} ({_value(best, by, scale)}{group})."


def _value(row: "pd.Series[Any]", by: str, scale: Scale) -> str:
    column = NAMED[by]
    return column.format.text(scale, *(row[name] for name in column.names))


def shown(full: pd.DataFrame, *, every: bool = False) -> pd.DataFrame:
    """Return the rows that a table shows: no control that was run as a generator, no sweep, unless "
    "every row is wanted."""
    if every:
        return full
    kept = full[(full["kind"] != CONTROL_RUN) & ~full["name"].isin(FOLDED)]
    return kept.reset_index(drop=True)


def rows(
    full: pd.DataFrame,
    columns: Sequence[str],
    scale: Scale,
    board: str,
    links: Links,
    chosen: str = "",
) -> str:
    """Return the table: generators with links to their details, controls as thin rows.

    Args:
        full: table of ``table.ordered``.
        columns: names of the columns behind group and name.
        scale: of the board's scores.
        board: its name.
        links: addresses of other pages.
        chosen: the row whose details are shown.
    """
    texts = present.texts(full, scale)
    heads = ["Row", "Group", *(NAMED[name].label for name in columns)]
    heads = [
        heads[0],
        *(
            _head(head, name, links)
            for head, name in zip(heads[1:], ["group", *columns], strict=True)
        ),
    ]
    lines = []
    for (_, row), (_, text) in zip(full.iterrows(), texts.iterrows(), strict=True):
        cells = [Cell(markup.text(text["group"]))]
        cells += [_cell(name, str(text[name]), row) for name in columns]
        kind = "generator" if row["kind"] == "generator" else "thin"
        lines.append(
            Line(
                _name(row, board, links), cells, f"{kind} chosen" if row["row"] == chosen else kind
            )
        )
    return markup.block(markup.table(heads, lines))


def _head(head: str, name: str, links: Links) -> Html:
    """Return a heading that links to how its column is read."""
    address, about = f"{links.to('methods')}#{name}", markup.text(NAMED[name].help)
    return Html(f'<a href="{address}" target="_self" title="{about}">{markup.text(head)}</a>')


def _name(row: "pd.Series[Any]", board: str, links: Links) -> str:
    name, kind = str(row["generator"]), str(row["kind"])
    worse = "<small>not as good</small>" if row.get("worse", False) else ""
    if kind not in ("generator", CONTROL_RUN):
        word = "" if kind in NAMES else " (control)"
        return f"{markup.text(NAMES.get(name, name))}{word}{worse}"
    mark = markup.dot(colour(str(row["name"])))
    return mark + markup.link(name, links.to("board", board, row=str(row["row"]))) + worse


def _cell(name: str, text: str, row: "pd.Series[Any]") -> Cell:
    if name != "verdict":
        return Cell(markup.text(text), number=NAMED[name].format.right)
    word, _, mark = text.partition(" (")
    said = (
        ""
        if text == UNKNOWN
        else f"{markup.text(word)}<small>{markup.text('(' + mark) if mark else ''}</small>"
    )
    shares = {kind: float(row[kind]) for kind in KINDS}
    known = not any(pd.isna(share) for share in shares.values())
    return Cell(said + (markup.bar(shares) if known else "") or UNKNOWN)


def details(row: str, own: pd.DataFrame, links: Links) -> str:
    """Return the details of a row: what it is made with, its records, and the commands that repeat it.

    Args:
        row: its name.
        own: its runs; none for originals, the reference and controls.
        links: addresses of other pages.
    """
    if own.empty:
        return markup.block(
            "<p>Checkpoints, held-out training and controls come with every record of the board.</p>"
        )
    first = own.iloc[0]
    runs = ", ".join(
        markup.link(f"seed {run.seed}", links.to("record", str(run.id))) for run in own.itertuples()
    )
    pairs = {
        "Records": runs,
        "Generator": markup.link(
            str(first["generator"]), links.to("generator", str(first["generator"]))
        ),
        "Settings": markup.text(first["hyperparameters"]),
        "Code": markup.text(first["source"]),
        "Checked": markup.text(", ".join(dict.fromkeys(own["tier"]))),
        "Device": markup.text(first["device"]),
        "Repeat": markup.code("\n".join(own["command"])),
    }
    one = "<p>One fit: its group and numbers are of this fit, and another seed may stand elsewhere.</p>"
    return markup.block(markup.facts(pairs), one if len(own) == 1 else "")


def drawn(full: pd.DataFrame, runs: pd.DataFrame, read: Callable[[str], Shown]) -> list[Shown]:
    """Return one run of each generator of a board, in the order of its table, for figures.

    Args:
        full: table of ``table.ordered``.
        runs: the board's runs.
        read: reads a record with its side file.
    """
    paths = dict(zip(runs["id"], runs["path"], strict=True))
    own = full[full["kind"] == "generator"].head(DRAWN)
    return [
        dataclasses.replace(read(paths[ids[0]]), label=str(name))
        for ids, name in zip(own["runs"], own["generator"], strict=True)
    ]


def over_zoos(found: Mapping[str, pd.DataFrame], names: Mapping[str, str], scale: Scale) -> str:
    """Return the table of rows over several zoos; see ``present.over_zoos``."""
    texts = present.over_zoos(found, names, scale)
    lines = [
        Line(markup.text(row[0]), [Cell(markup.text(x), number=True) for x in row[1:]])
        for row in texts.to_numpy()
    ]
    return markup.block(markup.table([str(name) for name in texts], lines))


def elsewhere(
    board: Mapping[str, Any], found: pd.DataFrame, titles: Mapping[str, str], links: Links
) -> str:
    """Return the table of other boards: their title, their records, and what differs.

    Args:
        board: this one; empty where there is none.
        found: table of ``boards.boards``.
        titles: titles of boards by name.
        links: addresses of other pages.
    """
    lines = []
    for other in boards.records(found[found["board"] != board.get("board")].head(MOST)):
        name, why = str(other["board"]), boards.why_elsewhere(board, other) if board else UNKNOWN
        cells = [Cell(str(other["records"]), number=True), Cell(markup.text(why))]
        lines.append(Line(markup.link(titles[name], links.to("board", name)), cells))
    return markup.block(markup.table(["Board", "Records", "What differs"], lines))
