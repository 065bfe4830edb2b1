"""The gate of the benchmarks: what it lets pass and what it stops."""

import json
import os
import subprocess
import sys

import pytest

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


def test_the_shipped_baseline_names_every_benchmark_in_both_forms():
    folder = gate.BASELINE.parent
    names = {
        line.removeprefix("def test_").partition("(")[0]
        for file in folder.glob("test_*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("def test_")
    }
    assert names == set(gate.baseline("full")) == set(gate.baseline("short"))
