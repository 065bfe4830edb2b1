"""The gate of the benchmarks: what it lets pass and what it stops."""

import json
import math
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import gate

BASELINE = {"fast": 10.0, "start": 5.0}


@pytest.fixture
def baseline(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "BASELINE", tmp_path / "baseline.json")
    return gate.BASELINE


def test_equal_or_better_ratios_pass():
    assert gate.complaints(BASELINE, BASELINE) == []
    assert gate.complaints({"fast": 40.0, "start": 4.01}, BASELINE) == []


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({"fast": 7.9, "start": 5.0}, ["fast", "79%", "10.0", "80%"]),
        ({"start": 5.0}, ["fast", "in the baseline, not in this run"]),
        ({**BASELINE, "new": 3.0}, ["new", "not in the baseline", "update"]),
    ],
)
def test_slower_and_missing_benchmarks_are_named(measured, words):
    (line,) = gate.complaints(measured, BASELINE)
    assert all(word in line for word in words)


NO_RATIOS = [math.nan, math.inf, -math.inf, 0.0, -3.0]


@pytest.mark.parametrize("ratio", NO_RATIOS)
@pytest.mark.parametrize("other", [10.0, math.nan])
def test_a_ratio_that_is_not_a_finite_number_above_0_never_passes(ratio, other):
    for measured, expected, source in (
        (ratio, other, "this run"), (other, ratio, "the baseline"), (ratio, ratio, "this run"),
    ):  # fmt: skip
        lines = gate.complaints({"fast": measured}, {"fast": expected})
        assert any(line.startswith(f"fast: ratio {ratio} in {source}") for line in lines)
        assert len(lines) == sum(not 0 < one < math.inf for one in (measured, expected))


def test_a_benchmark_without_a_baseline_is_named_beside_its_ratio_that_is_none():
    assert len(gate.complaints({"new": math.nan}, {})) == 2


@pytest.mark.parametrize("written", ["NaN", "null", '"9.5"', "true", "[9.5]"])
def test_what_is_no_number_in_a_file_is_a_complaint(written, baseline, tmp_path):
    baseline.write_text(f'{{"short": {{"fast": {written}}}}}')
    assert math.isnan(gate.baseline("short")["fast"])
    report = tmp_path / "report.json"
    entry = f'{{"name": "test_fast", "extra_info": {{"ratio": {written}}}}}'
    report.write_text(f'{{"benchmarks": [{entry}]}}')
    assert math.isnan(gate.ratios(report)["fast"])


@pytest.mark.parametrize("ratio", NO_RATIOS)
@pytest.mark.parametrize("action", ["check", "update"])
def test_the_command_stops_at_such_a_ratio_and_leaves_the_baseline(
    action, ratio, baseline, monkeypatch
):
    gate.write_baseline(benchmarks._form(short=False), BASELINE)
    before = baseline.read_text()
    monkeypatch.setattr(benchmarks, "_measure", lambda *_: {**BASELINE, "fast": ratio})
    done = CliRunner().invoke(benchmarks.app, [action])
    assert done.exit_code == 1
    assert "fast: ratio" in done.output
    assert baseline.read_text() == before
    monkeypatch.setattr(benchmarks, "_measure", lambda *_: {**BASELINE, "fast": 11.0})
    assert CliRunner().invoke(benchmarks.app, [action]).exit_code == 0


def test_forms_have_baselines_of_their_own(baseline):
    assert gate.baseline("short") == {}
    gate.write_baseline("short", {"fast": 1.234})
    gate.write_baseline("full", {"fast": 9.0})
    gate.write_baseline("short", {"start": 2.0})
    assert gate.baseline("short") == {"start": 2.0}
    assert gate.baseline("full") == {"fast": 9.0}


def test_ratios_come_from_the_report_of_pytest_benchmark(tmp_path):
    """A slowed path fails the gate: measured here, with a plain path that takes as long as ours."""
    code = """
import time
def test_same(versus):
    versus(lambda: time.sleep(0.02), lambda: time.sleep(0.02), lambda a, b: None)
def test_twice(versus):
    versus(lambda: time.sleep(0.02), lambda: time.sleep(0.02), lambda a, b: None, scale=2)
"""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "test_made.py").write_text(code)
    (folder / "conftest.py").write_text("from tests.benchmarks.conftest import *\n")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", str(folder)]
    command += ["--rootdir", str(tmp_path), "--benchmark-json", str(report)]
    # A run of its own, not a part of this one: beside other workers pytest-benchmark measures nothing.
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PYTEST_XDIST")}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    ratios = gate.ratios(report)
    assert ratios == {"same": pytest.approx(1, rel=0.3), "twice": pytest.approx(2, rel=0.3)}
    (line,) = gate.complaints({"same": ratios["same"]}, {"same": 2.0})
    assert line.startswith("same: ratio")
    extra = json.loads(report.read_text())["benchmarks"][0]["extra_info"]
    assert len(extra["ratios"]) == 3


def test_a_kind_of_processor_without_a_baseline_is_compared_with_nothing(baseline, monkeypatch):
    gate.write_baseline("full of another kind", BASELINE)
    for ratio, code in ((0.1, 0), (math.nan, 1)):
        monkeypatch.setattr(benchmarks, "_measure", lambda *_, ratio=ratio: {"fast": ratio})
        done = CliRunner().invoke(benchmarks.app, ["check"])
        assert done.exit_code == code
        assert f"there is no baseline '{benchmarks._form(short=False)}'" in done.output


def test_every_shipped_baseline_names_every_benchmark():
    folder = gate.BASELINE.parent
    names = {
        line.removeprefix("def test_").partition("(")[0]
        for file in folder.glob("test_*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("def test_")
    }
    shipped = json.loads(gate.BASELINE.read_text(encoding="utf-8"))
    assert {"full avx512", "short avx512", "short avx2"} <= set(shipped)
    for form in shipped:
        assert set(gate.baseline(form)) == names
