"""Export of a table as CSV, LaTeX or Markdown, with the special characters of each format escaped."""

import io
from collections.abc import Collection

import pandas as pd

from bench.records import markdown as tables

# First characters of a cell that spreadsheets take for a formula.
FORMULA = ("=", "+", "-", "@", "\t")
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def csv(table: pd.DataFrame) -> str:
    """Return a table as CSV text: every column with all digits, and formulas of spreadsheets quoted."""
    text = table.select_dtypes(include=["object", "string"]).columns
    safe = table.copy()
    for name in text:
        safe[name] = [f"'{v}" if str(v).startswith(FORMULA) else v for v in table[name]]
    buffer = io.StringIO()
    safe.to_csv(buffer, index=False)
    return buffer.getvalue()


def markdown(table: pd.DataFrame) -> str:
    """Return a table as a Markdown pipe table.

    Args:
        table: a table of text; columns of numbers are aligned right.
    """
    head, *body = ([_markdown(cell) for cell in line] for line in _lines(table))
    return tables.table(head, body, [_numeric(table[name]) for name in table])


def latex(table: pd.DataFrame, *, caption: str = "", bold: Collection[tuple[int, int]] = ()) -> str:
    """Return a table of text as a LaTeX ``tabular`` with the rules of the package booktabs.

    Args:
        table: the text.
        caption: makes it a floating ``table`` with this caption.
        bold: positions of cells that are bold: row and column, from 0.
    """
    columns = "".join("r" if _numeric(table[name]) else "l" for name in table)
    head, *body = (list(map(_latex, line)) for line in _lines(table))
    for row, column in bold:
        body[row][column] = rf"\textbf{{{body[row][column]}}}"
    lines = [" & ".join(line) + r" \\" for line in (head, *body)]
    inner = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    tabular = [rf"\begin{{tabular}}{{{columns}}}", *inner, r"\end{tabular}"]
    if caption:
        said = rf"\caption{{{_latex(caption)}}}"
        tabular = [r"\begin{table}", r"\centering", said, *tabular, r"\end{table}"]
    return "\n".join([*tabular, ""])


def _lines(table: pd.DataFrame) -> list[list[str]]:
    """Return the cells line by line, the headings first."""
    return [list(map(str, table.columns)), *table.to_numpy().tolist()]


def _numeric(column: "pd.Series[str]") -> bool:
    """Return whether every cell of a column starts like a number, or is empty."""
    return all(not cell or cell == "-" or cell.lstrip("+-")[:1].isdigit() for cell in column)


def _markdown(text: str) -> str:
    """Return text with Markdown's special characters escaped, but for the bar, which every pipe table escapes."""
    for mark in ("\\", "`", "*", "_", "[", "]", "<", "$", "~", "#", "!"):
        text = text.replace(mark, "\\" + mark)
    return text


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text)
