"""Write a table as CSV, LaTeX or Markdown, with its text made harmless for each."""

import io

import pandas as pd

from bench.records import markdown as tables

FORMULA = ("=", "+", "-", "@", "\t")  # a spreadsheet would compute a cell that starts so
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def csv(table: pd.DataFrame) -> str:
    """Return every column with all digits."""
    text = table.select_dtypes(include=["object", "string"]).columns
    safe = table.copy()
    for name in text:
        safe[name] = [f"'{v}" if str(v).startswith(FORMULA) else v for v in table[name]]
    buffer = io.StringIO()
    safe.to_csv(buffer, index=False)
    return buffer.getvalue()


def markdown(table: pd.DataFrame) -> str:
    """Return a pipe table.

    Args:
        table: of text, as a page shows it; the columns that are numbers are aligned right.
    """
    head, *body = ([_markdown(cell) for cell in line] for line in _lines(table))
    return tables.table(head, body, [_numeric(table[name]) for name in table])


def latex(table: pd.DataFrame) -> str:
    """Return a ``tabular`` with the rules of the package booktabs; of text, as a page shows it."""
    columns = "".join("r" if _numeric(table[name]) else "l" for name in table)
    head, *body = (" & ".join(map(_latex, line)) + r" \\" for line in _lines(table))
    inner = [r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *inner, r"\end{tabular}", ""])


def _lines(table: pd.DataFrame) -> list[list[str]]:
    """Return the cells line by line, the headings first."""
    return [list(map(str, table.columns)), *table.to_numpy().tolist()]


def _numeric(column: "pd.Series[str]") -> bool:
    """Return whether every cell starts as a number, or is empty."""
    return all(not cell or cell == "-" or cell.lstrip("+-")[:1].isdigit() for cell in column)


def _markdown(text: str) -> str:
    """Escape what Markdown would read as markup, but for the bar, which every table escapes."""
    for mark in ("\\", "`", "*", "_", "[", "]", "<", "$", "~", "#", "!"):
        text = text.replace(mark, "\\" + mark)
    return text


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text)
