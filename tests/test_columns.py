import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import leaderboard
from bench.records.scale import Scale
from leaderboard import columns, expected, load, present, table
from tests.records import judged, record

NEW = """
    Column(
        "base", "Base", "Score of the network that the checkpoints began with.", formats.SCORE,
        (Field("base", of_run(attrgetter("zoo.base_score"))),), better="score",
    ),
"""
SHOWN = """
import sys
from pathlib import Path
from bench.records.record import Record
from bench.records.scale import Scale
from leaderboard import columns, export, load, present, table

runs, _ = load.load([Path(sys.argv[1])])
record = Record.read(Path(runs["path"].iloc[0]))
ranked = table.ordered(table.rows(runs, record), "base", True, {})
shown = present.labelled(present.texts(ranked, Scale.of(record)))
print(shown["Base"].iloc[0], shown["Base"].iloc[-1])
print(export.csv(ranked).splitlines()[0].split(",").count("base"))
"""


def test_a_new_column_is_one_declaration_in_one_file(tmp_path):
    """Its number is read of every record, pooled, ranked, shown in the score's unit, and exported."""
    package = Path(leaderboard.__file__).parent
    copied = tmp_path / "leaderboard"
    shutil.copytree(package, copied, ignore=shutil.ignore_patterns("results", "__pycache__"))
    file = copied / "columns.py"
    file.write_text(file.read_text().replace("\nCOLUMNS = (", f"\nCOLUMNS = ({NEW}", 1))
    record().write(tmp_path / "records")
    done = subprocess.run(
        [sys.executable, "-c", SHOWN, str(tmp_path / "records")],
        cwd=tmp_path, env={"PYTHONPATH": str(package.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["90.0 -", "1"], done.stderr


def test_names_and_labels_are_told_apart():
    assert len(columns.NAMED) == len(columns.FIXED) + len(columns.COLUMNS)
    assert len({column.label for column in columns.NAMED.values()}) == len(columns.NAMED)
    names = [field.name for field in columns.FIELDS]
    assert len(set(names)) == len(names)
    assert set(columns.OPENING) <= set(columns.NAMED)
    assert set(expected.STATISTICS) <= set(columns.RANKED)


@pytest.mark.parametrize("make", [record, judged])
@pytest.mark.parametrize("metric", ["accuracy", "FID"])
def test_a_cell_of_a_record_is_the_cell_of_its_board(tmp_path, metric, make):
    one = make(task__metric=metric)
    runs, _ = load.load([one.write(tmp_path).parent])
    shown = present.texts(table.rows(runs, one).assign(group=None), Scale.of(one))
    for of in [*columns.populations(one), "generated"]:
        row = "pdiff" if of == "generated" else of
        cells = shown[shown["generator"] == row].iloc[0]
        for column in columns.COLUMNS:
            assert column.text(one, of, Scale.of(one)) == cells[column.name], (of, column.name)


def cell(one, name, of="generated"):
    return columns.NAMED[name].text(one, of, Scale.of(one))


def changed(one, **fields):
    return one.model_copy(update={"judge": one.judge.model_copy(update=fields)})


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"word": "copies", "rule": 1}, "copies (withdrawn)"),
        ({"word": "novel", "rule": None}, "novel (withdrawn)"),
        ({"word": "novel", "rule": 1, "sees_training": False}, "novel (withdrawn, cannot tell)"),
        ({"word": "novel", "rule": 2, "resolution": 0.75}, "novel (resolution 0.75)"),
        (
            {"word": "undecided", "rule": 2, "resolution": 0.1},
            "undecided (resolution 0.10, cannot tell)",
        ),
        ({"word": "undecided", "rule": 2}, "undecided (no reference)"),
        ({"word": None}, "-"),
    ],
)
def test_a_verdict_says_whether_its_board_can_tell(fields, shown):
    assert cell(changed(record(), **fields), "verdict") == shown


def test_numbers_against_the_reference_are_blank_without_one():
    for name in ("new", "quality", "resolution"):
        assert {cell(record(), name, of) for of in ("generated", "original", "copy")} == {"-"}


def test_numbers_against_the_reference_have_their_intervals():
    one = judged(0.75, 0.25, 0, 0, resolution=0.625)
    assert cell(one, "new") == "75 (65 to 85)"
    assert cell(one, "new", "reference") == "100 (90 to 100)"
    assert cell(one, "new", "copy") == "0 (0 to 10)"
    assert cell(one, "new", "original") == "-"
    assert cell(one, "quality") == "-1.0 (-2.0 to +0.5)"
    assert cell(one, "quality", "average") == "-"  # a single model
    assert cell(one, "resolution") == "0.62"
    assert cell(one, "resolution", "copy") == "-"
