"""A table as CSV, LaTeX or Markdown, text in it made harmless for each."""

import io

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t")  # a spreadsheet would compute a cell that starts so
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def csv(table: pd.DataFrame) -> str:
    """Every column with all digits."""
    text = table.select_dtypes(include=["object", "string"]).columns
    safe = table.copy()
    for name in text:
        safe[name] = [f"'{v}" if str(v).startswith(FORMULA) else v for v in table[name]]
    buffer = io.StringIO()
    safe.to_csv(buffer, index=False)
    return buffer.getvalue()


def markdown(table: pd.DataFrame) -> str:
    """A pipe table.

    Args:
        table: of text, as a page shows it; the columns that are numbers are aligned right.
    """
    rule = ["---:" if _numeric(table[name]) else "---" for name in table]
    lines = [list(map(str, table.columns)), rule, *table.to_numpy().tolist()]
    escaped = [[_markdown(cell) if cell not in rule else cell for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def latex(table: pd.DataFrame) -> str:
    """A ``tabular`` with the rules of the package booktabs; of text, as a page shows it."""
    columns = "".join("r" if _numeric(table[name]) else "l" for name in table)
    lines = [list(map(str, table.columns)), *table.to_numpy().tolist()]
    head, *body = (" & ".join(map(_latex, line)) + r" \\" for line in lines)
    inner = [r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *inner, r"\end{tabular}", ""])


def _numeric(column: "pd.Series[str]") -> bool:
    """Whether every cell starts as a number, or is empty."""
    return all(not cell or cell == "-" or cell.lstrip("+-")[:1].isdigit() for cell in column)


def _markdown(text: str) -> str:
    for mark in ("\\", "`", "*", "_", "[", "]", "<", "|", "$", "~", "#", "!"):
        text = text.replace(mark, "\\" + mark)
    return text


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text)
