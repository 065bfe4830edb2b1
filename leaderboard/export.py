"""Export of a table as CSV, LaTeX or Markdown, with the special characters of each format escaped."""

import io

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


def latex(table: pd.DataFrame) -> str:
    """Return a table of text as a LaTeX ``tabular`` with the rules of the package booktabs."""
    columns = "".join("r" if _numeric(table[name]) else "l" for name in table)
    head, *body = (" & ".join(map(_latex, line)) + r" \\" for line in _lines(table))
    inner = [r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *inner, r"\end{tabular}", ""])


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
