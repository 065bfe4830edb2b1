import csv
import io
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboard import export

TABLE = pd.DataFrame(
    {
        "Generator": ["pdiff, steps=10", "noise 0.1"],
        "Best": ["97.5", "-"],
        "95 %": ["97 to 98", "-"],
    }
)


def test_csv_is_read_back_with_all_digits():
    made = pd.DataFrame({"name": ["a,b", 'c"d'], "best": [0.123456789012, 1.0]})
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(export.csv(made))), made)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@a", "\t=1"])
def test_a_spreadsheet_computes_no_cell(text):
    made = pd.DataFrame({"name": [text], "best": [-0.5]})
    row = next(csv.DictReader(io.StringIO(export.csv(made))))
    assert row["name"] == f"'{text}"
    assert row["best"] == "-0.5"


def test_markdown_aligns_numbers_right():
    lines = export.markdown(TABLE).splitlines()
    assert lines[0] == "| Generator | Best | 95 % |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == "| pdiff, steps=10 | 97.5 | 97 to 98 |"


def test_latex_is_a_tabular_of_booktabs():
    text = export.latex(TABLE)
    assert text.startswith("\\begin{tabular}{lrr}\n\\toprule\nGenerator & Best & 95 \\% \\\\")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_text_stays_text(text):
    made = pd.DataFrame({"a": [text], "b": ["1"]})
    cell = export.latex(made).splitlines()[4].rpartition(" & ")[0]
    known = "|".join(map(re.escape, export.LATEX.values()))
    assert not re.search(r"[\\&%$#_{}~^]", re.sub(known, "", cell))
    line = export.markdown(made).splitlines()[2]
    assert not re.search(r"(?<!\\)(\\\\)*[`*_\[\]<$~#!]", re.sub(r"\\\\", "", line)), line
    assert len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line))) == 3
