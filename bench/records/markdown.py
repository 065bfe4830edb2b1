"""Markdown tables as text."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    r"""Return a pipe table; a bar within a cell is escaped, other marks are the caller's.

    Args:
        head: the columns' headings.
        rows: the cells, one sequence a row.
        right: which columns are aligned right, as numbers are.

    >>> print(table(["name", "n"], [["a|b", "1"]], [False, True]), end="")
    | name | n |
    | --- | ---: |
    | a\|b | 1 |
    """
    rule = ["---:" if aligned else "---" for aligned in right]
    lines = [_bars(head), rule, *map(_bars, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _bars(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]
