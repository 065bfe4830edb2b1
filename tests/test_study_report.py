import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from bench.records.paper import tables
from bench.study import recipe, report, show
from bench.study.report import Measured
from tests import studies
from tests.records import content, population, record
from tests.standins import call

NAME = "table2c"


def cells(name=NAME, **fixed):
    return recipe.cells(recipe.read(name).fix(fixed))


def known(*made):
    """Records by what their commands ask for, as ``drive.records`` finds them."""
    found = {}
    for one in made:
        found.setdefault(one.request, []).append(one)
    return found


def made(cell, *values, **fields):
    return record(
        command=cell.request.asked.command, scores__generated=population(*values), **fields
    )


def line(parts, *label):
    return next(row for part in parts for row in part.lines if row.label == label)


def entry(parts, column, *label):
    return next(e for e in line(parts, *label).entries if e.column == column)


def of_row(found, label):
    return [cell for cell in found if cell.label == (label,)]


def reported(*records, name=NAME):
    return report.parts(recipe.read(name), cells(name), known(*records))


def test_theirs_stand_there_without_any_record_and_every_run_is_missing():
    parts = reported()
    cell = entry(parts, "avg.", "no noise")
    assert (cell.paper, round(cell.log, 2), cell.ours) == (65.8, 76.54, None)
    assert entry(parts, "selected", "no noise").paper is None
    row = line(parts, "no noise")
    assert (row.recorded, row.asked, len(row.missing)) == (0, 3, 3)
    assert len(show.commands(parts)) == len(recipe.requests(cells())) == 12


def test_seeds_are_pooled_with_students_interval():
    own = of_row(cells(), "no noise")
    values = [(0.70, 0.72), (0.71, 0.75), (0.74, 0.78)]
    parts = reported(*(made(cell, *pair) for cell, pair in zip(own, values, strict=True)))
    best = entry(parts, "best", "no noise").ours
    tops = [100 * max(pair) for pair in values]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(tops), scale=stats.sem(tops))
    assert (best.value, best.low, best.high) == pytest.approx((np.mean(tops), low, high))
    assert entry(parts, "avg.", "no noise").ours.value == pytest.approx(
        100 * np.mean([np.mean(pair) for pair in values])
    )
    assert line(parts, "no noise").missing == []
    assert "no noise" not in " ".join(show.commands(parts))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda v: np.std(v) > 1e-6))
def test_the_interval_is_that_of_scipy(values):
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    got = report.pooled(values)
    assert (got.value, got.low, got.high) == pytest.approx((np.mean(values), low, high))


def test_one_seed_has_the_interval_of_its_record():
    (first, *_) = of_row(cells(), "no noise")
    scores = population(0.7, 0.8) | {"low": 0.71, "high": 0.79}
    one = record(command=first.request.asked.command, scores__generated=scores)
    parts = reported(one)
    mean = entry(parts, "avg.", "no noise").ours
    assert (mean.value, mean.low, mean.high) == pytest.approx((75, 71, 79))
    assert entry(parts, "best", "no noise").ours == Measured(80.0)
    row = line(parts, "no noise")
    assert (row.recorded, row.asked, len(row.missing)) == (1, 3, 2)
    assert all("--seed" in missing for missing in row.missing)


def test_originals_are_the_same_for_every_seed_and_have_no_interval():
    own = of_row(cells(), "+ para. and latent noise")
    parts = reported(*(made(cell, 0.1 * n, 0.2) for n, cell in enumerate(own)))
    assert entry(parts, "best", "original models").ours == Measured(92.0)
    assert entry(parts, "best", "original models").paper == 76.7


def test_the_newest_record_of_a_run_counts():
    (first, *_) = of_row(cells(), "no noise")
    old, new = made(first, 0.5, 0.6), made(first, 0.7, 0.8)
    assert entry(reported(old, new), "best", "no noise").ours == Measured(80.0)


def test_devices_are_not_pooled():
    own = of_row(cells(), "no noise")
    records = [made(cell, 0.5, 0.6) for cell in own]
    other = made(own[0], 0.9, 0.95, timing__device="NVIDIA H200")
    row = line(reported(*records, other), "no noise")
    assert (row.device, row.recorded) == ("cpu", 3)
    assert entry(reported(*records, other), "best", "no noise").ours == Measured(60.0)


def test_the_order_of_options_does_not_matter():
    (first, *_) = of_row(cells(), "no noise")
    line_ = first.request.asked.command.replace(
        "--set input_noise=0 --set latent_noise=0", "--set latent_noise=0 --set input_noise=0"
    )
    assert line_ != first.request.asked.command
    parts = reported(record(command=line_))
    assert line(parts, "no noise").recorded == 1


def test_similarity_among_all_models_and_among_good_ones():
    own = {
        "min_score": 0.765, "originals": 3, "generated": 2, "original_original": 0.5,
        "generated_generated": None, "original_generated": 0.6, "original_generated_max": 0.7,
    }  # fmt: skip
    similarity = content()["similarity"] | {"good": own}
    (cell,) = cells("figure4", seed=0)
    one = record(command=cell.request.asked.command, similarity=similarity)
    parts = report.parts(recipe.read("figure4").fix({"seed": 0}), [cell], known(one))
    found = {e.column: e for e in line(parts, *cell.label).entries}
    assert found["orig.-orig."].ours == Measured(0.8, 0.8, 0.8)
    assert found["orig.-orig."].log == pytest.approx(0.7837, abs=1e-4)
    assert found["good orig.-orig."].ours == Measured(0.5)
    assert found["good orig.-orig."].log is None
    assert found["good gen.-gen."].ours is None


def test_numbers_have_the_papers_units():
    times = record(timing__peak_memory_bytes=2_000_000, timing__sample_s=3.0)
    five, twelve = tables()["5"], tables()["12"]
    for column, value in (("memory, MB", 2.0), ("time, s", 3.0), ("worst", 88.0)):
        field = report.OURS["generated"][column]
        assert report.measure([times], field, five.factor(column)).value == pytest.approx(value)
    assert twelve.factor("best") == 1
    assert report.read(record(timing__sgd_s=None), "speedup") is None


def test_as_text_markdown_and_csv_the_numbers_are_the_same():
    own = of_row(cells(), "no noise")
    parts = reported(*(made(cell, 0.5, 0.6 + 0.01 * n) for n, cell in enumerate(own)))
    console = Console(width=200, file=io.StringIO())
    console.print(show.text(parts))
    text, marked = console.file.getvalue(), show.markdown(parts)
    low, high = (
        entry(parts, "best", "no noise").ours.low,
        entry(parts, "best", "no noise").ours.high,
    )
    shown = f"61.00 ({low:.2f} to {high:.2f})"
    for written in (text, marked):
        assert shown in written
        assert "9 runs have no record yet" in written or "Runs that have no record yet" in written
        assert written.count("python -m bench run") == 9
    rows = [row for row in marked.splitlines() if row.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert "| no noise | 76.7 | 77.15 | 61.00 (" in marked
    (best,) = [
        row
        for row in csv.DictReader(io.StringIO(show.csv_text(parts)))
        if (row["row"], row["column"]) == ("no noise", "best")
    ]
    assert float(best["paper"]) == 76.7
    assert (float(best["low"]), float(best["high"])) == (low, high)
    assert (best["runs"], best["runs_wanted"], best["missing"]) == ("3", "3", "")


def test_a_row_that_cannot_be_run_shows_its_reference():
    made_by = recipe.read("table11").fix({"task": "digits", "layers": "all", "seed": 0})
    parts = report.parts(made_by, recipe.cells(made_by), {})
    row = line(parts, "pixelwise accuracy")
    assert (row.asked, row.missing) == (0, [])
    assert next(e for e in row.entries if e.column == "best").paper == 91.5
    assert "91.5" in show.markdown(parts)


def test_the_report_of_a_study_that_ran(tmp_path, capsys):
    path = studies.recipe(tmp_path)
    results = ("--results", tmp_path / "results")
    assert call("study", path, *results, "--device", "cpu", "--only", "seed=0") == 0
    capsys.readouterr()
    assert call("study", path, *results, "--report", "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    numbers = {(row["row"], row["column"]): row for row in rows}
    for data in studies.records(tmp_path / "results").values():
        name = data["generator"]["name"]
        row = numbers[name, "avg."]
        assert float(row["ours"]) == pytest.approx(100 * data["populations"]["generated"]["mean"])
        assert (row["runs"], row["runs_wanted"]) == ("1", "2")
        assert row["missing"].endswith("--seed 1")
    assert call("study", path, *results, "--report") == 0
    assert "2 runs have no record yet:" in capsys.readouterr().out
    assert (
        call("study", path, "--results", tmp_path / "none", "--report", "--format", "markdown") == 0
    )
    assert capsys.readouterr().out.count("python -m bench run") == 4


def test_every_shipped_study_has_a_report():
    for name in recipe.names():
        found = recipe.read(name)
        parts = report.parts(found, recipe.cells(found), {})
        assert parts
        assert show.markdown(parts).count("| ") > 0
