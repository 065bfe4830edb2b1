"""Checks of scores on replicates of the validation examples, and what verifying makes of them."""

import json

import numpy as np
import pytest

from bench.contract.metric import Metric
from bench.records import check, side
from bench.records.checks import identity, shapes
from bench.records.checks.case import Case
from bench.records.record import Record
from bench.records.request import Request
from bench.runs.pipeline import Run
from bench.runs.verify import verify
from bench.system.store import file_hash
from tests.records import distances, parsed

SETTINGS = {
    "epochs": 1, "batch_size": 4, "train_size": 5, "image_size": 40, "layers": "last-norms:2",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of segmentation; its record beside its side file."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder / "home"))
        request = Request(
            task="fake-masks", generator="gaussian", task_settings=SETTINGS, k=4, samples=4, held_out=2,
            device="cpu", results=folder / "results",
        )  # fmt: skip
        _, path = Run(request).execute()
        yield path


@pytest.fixture
def path(finished, tmp_path, monkeypatch):
    """A copy of the record and its side file; the store is where it was."""
    monkeypatch.setenv("BENCH_HOME", str(finished.parents[2] / "home"))
    copy = tmp_path / finished.parent.name / finished.name
    copy.parent.mkdir()
    for suffix in (".json", ".npz"):
        copy.with_suffix(suffix).write_bytes(finished.with_suffix(suffix).read_bytes())
    return copy


def written(path, arrays, **metric):
    """Write other arrays, and other facts of the metric."""
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    data = json.loads(path.read_text())
    data["artifacts"]["side"]["sha256"] = file_hash(path.with_suffix(".npz"))
    data["task"]["metric"] |= metric
    path.write_text(json.dumps(data))


def named(path):
    """The problems about replicates; of so few models that were hardly trained, scores seem odd otherwise."""
    return [problem for problem in check.check(path) if "resampled" in problem]


def test_what_a_run_writes_is_all_right_and_the_same_when_it_is_verified(path):
    assert named(path) == []
    record, arrays = Record.read(path), side.read(path.with_suffix(".npz"))
    assert record.task.metric.resampled == "bootstrap"
    names = {f"resampled_{which}.{name}" for which in side.RESAMPLED for name in record.populations}
    assert {name for name in arrays if name.startswith("resampled")} == names
    assert {arrays[name].shape for name in names} == {(100,)}
    assert arrays["resampled_mean.reference"].std() > 0
    checks = {one.field: one.problem for one in verify(record, side_file=path.with_suffix(".npz"))}
    assert {name: checks[f"side file.{name}"] for name in names} == dict.fromkeys(names, "")


CHANGES = [
    (lambda arrays: arrays.pop("resampled_best.copy"), "'resampled_best' of copy is missing"),
    (
        lambda arrays: arrays.update({"resampled_mean.copy": arrays["resampled_mean.copy"][:50]}),
        "'resampled_mean.copy' has shape (50,), expected (100)",
    ),
    (
        lambda arrays: arrays.update({"resampled_mean.copy": arrays["resampled_mean.copy"] + 0.3}),
        "mean of resampled_mean.copy is",
    ),
    (
        lambda arrays: arrays.update({"resampled_mean.copy": arrays["resampled_mean.copy"] - 2}),
        "'resampled_mean.copy' has scores that mean IoU cannot have",
    ),
]


@pytest.mark.parametrize(("change", "problem"), CHANGES)
def test_replicates_that_do_not_follow_are_named(path, change, problem):
    arrays = side.read(path.with_suffix(".npz"))
    change(arrays)
    written(path, arrays)
    assert any(problem in found for found in check.check(path)), check.check(path)


def test_too_few_replicates_are_named(path):
    arrays = side.read(path.with_suffix(".npz"))
    written(path, {n: a[:5] if n.startswith("resampled") else a for n, a in arrays.items()})
    assert any("has shape (5,), expected (10)" in found for found in check.check(path))


def test_no_record_of_this_schema_may_say_that_its_metric_is_not_resampled(path):
    arrays = side.read(path.with_suffix(".npz"))
    written(path, arrays, resampled="none")
    found = check.check(path)
    assert any("task.metric.resampled is none, expected bootstrap" in one for one in found)
    assert any(
        "'resampled_mean.copy' is not among the arrays of such a run" in one for one in found
    )


def test_a_record_of_the_first_schema_has_none():
    made = parsed(distances())
    assert made.task.metric == Metric("fd-convnet3", higher_is_better=False)
    arrays = {"resampled_mean.original": np.ones(20, np.float32)}
    _, problems = shapes.valid_arrays(Case(made, arrays, schema=1))
    named = "'resampled_mean.original' is not among the arrays of such a run"
    assert any(named in problem for problem in problems)
    about = [one for one in identity.problems(Case(made, {}, schema=1)) if "resampled" in one]
    assert about == []
    about = [one for one in identity.problems(Case(made, {})) if "metric.resampled" in one]
    assert len(about) == 1
    assert "task.metric.resampled is none, expected jackknife" in about[0]
