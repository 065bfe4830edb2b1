"""A ranked table in the form that the page and its exports show. Pure functions, no widgets, no torch."""

import pandas as pd

from bench.records.scale import Scale
from leaderboard.columns import COLUMNS, FIXED, NAMED, Column

# Pixels of one letter, of the cell's margins, and of the widest column.
LETTER, MARGIN, WIDEST = 7, 20, 280


def texts(ranked: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """Return a ranked table as text, with one column for each ``Column``."""
    return pd.DataFrame({one.name: _cells(ranked, one, scale) for one in (*FIXED, *COLUMNS)})


def _cells(ranked: pd.DataFrame, column: Column, scale: Scale) -> list[str]:
    values = zip(*(ranked[name] for name in column.names), strict=True)
    return [column.format.text(scale, *row) for row in values]


def sortable(ranked: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """Return a table like that of ``texts``, with numbers in the columns that the page formats and sorts."""
    found = texts(ranked, scale)
    for column in COLUMNS:
        if column.format.printf:
            values = ranked[column.names[0]].to_numpy()
            found[column.name] = values * scale.factor if column.format.scored else values
    return found


def labelled(shown: pd.DataFrame) -> pd.DataFrame:
    """Return a table of ``texts`` with the columns' labels as headings."""
    return shown.rename(columns={name: column.label for name, column in NAMED.items()})


def width(column: Column, ranked: pd.DataFrame) -> int | None:
    """Return a column's width in pixels, by its longest text if the column fits it; None leaves it to the page."""
    if not column.fits:
        return column.width
    shown = [text for text in ranked[column.names[0]] if isinstance(text, str)]
    longest = max(map(len, shown), default=0)
    return min(WIDEST, max(column.width or 0, LETTER * longest + MARGIN))


def caption(by: str, tested: bool, problem: str, *, paired: bool) -> str:
    """Return the text below a table that says how to read its ranks.

    Args:
        by: name of the column that rows are ranked by.
        tested: whether ties were found by a bootstrap.
        problem: why ties were not found for all rows, or empty.
        paired: whether the score is a mean over validation units, which the bootstrap draws too.
    """
    if not tested:
        why = problem or "there is no test of ties for this column"
        return f"Ranked by {NAMED[by].label} as it stands: {why}."
    if not paired:
        return (
            "Rows of equal rank cannot be told apart (bootstrap over seeds and samples; 95 %, each pair by itself). "
            "This score is no mean over units: what other validation examples would change is not known, and single "
            "models are ranked as they stand."
        )
    text = (
        "Rows of equal rank cannot be told apart (paired bootstrap over the same validation units, and over seeds and "
        "samples; 95 %, each pair by itself)."
    )
    return f"{text} {problem}: their rows are ranked as they stand." if problem else text
