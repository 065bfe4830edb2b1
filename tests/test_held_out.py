"""The reference: models that are trained as the zoo's, and that no generator sees."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.contract.zoo import Zoo
from bench.errors import BenchError
from bench.records import check, report
from bench.records.record import Record
from bench.records.request import Request
from bench.runs import pipeline
from bench.runs.stages import load_reference
from tasks.classification import Classification
from tasks.fast.stacking import StackedRuns
from tasks.training import collection
from tests.standins import call

SETTINGS = {"epochs": 1, "batch_size": 20, "val_size": 20}
SEEDS = {"track": "seeds", "layers": "all", "arch": "mlp3"}


def request(generator="copy", task_settings=None, **values):
    task = {**SETTINGS, **(task_settings or {})}
    usual = {"k": 3, "samples": 4, "held_out": 5, "device": "cpu", "results": Path("results")}
    return Request(task="fake", generator=generator, task_settings=task, **{**usual, **values})


@pytest.fixture(autouse=True)
def _folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained(monkeypatch):
    """How many models of a reference were asked for, a number each time that a task trained one."""
    counts = []
    usual = Classification.reference

    def reference(self, zoo, count, **more):
        counts.append(count)
        return usual(self, zoo, count, **more)

    monkeypatch.setattr(Classification, "reference", reference)
    return counts


def test_two_generators_share_one_reference(trained):
    first, path = pipeline.run(request("copy"))
    second, _ = pipeline.run(request("gaussian", seed=3))
    assert trained == [5]
    assert first.artifacts.reference == second.artifacts.reference
    held = first.populations["reference"]
    assert second.populations["reference"] == held
    assert (held.role, held.n, first.protocol.held_out) == ("reference", 5, 5)
    assert first.judge.against_reference["reference"] == second.judge.against_reference["reference"]
    assert first.judge.resolution == second.judge.resolution
    assert set(first.judge.against_reference) == {*first.populations} - {"original"}
    assert check.check(path) == []


def test_what_only_scoring_depends_on_is_no_other_reference(trained):
    first, _ = pipeline.run(request())
    fewer, _ = pipeline.run(request(task_settings={"val_size": 10}))
    more, _ = pipeline.run(request(held_out=6))
    assert trained == [5, 6]
    assert fewer.artifacts.reference == first.artifacts.reference
    assert fewer.populations["reference"] != first.populations["reference"]
    assert more.key == first.key
    assert more.id != first.id


def test_without_held_out_models_there_is_no_reference(trained):
    record, path = pipeline.run(request(held_out=0, task_settings=SEEDS))
    assert trained == []
    assert "reference" not in record.populations
    assert record.artifacts.reference is None
    assert (record.judge.against_reference, record.judge.resolution) == ({}, None)
    assert record.judge.word == "undecided"
    assert report.NO_REFERENCE in report.sentences(record)
    assert check.check(path) == []


def test_no_model_of_the_reference_is_another_or_a_checkpoint():
    for settings in ({}, SEEDS):
        run = pipeline.Run(request(task_settings=settings))
        zoo, _ = run.zoo()
        held = run.reference(zoo)
        assert held.vectors.shape == (5, zoo.layout.dim)
        everything = torch.cat([held.vectors, zoo.vectors])
        apart = torch.cdist(everything, everything, compute_mode="donot_use_mm_for_euclid_dist")
        assert (apart + torch.eye(len(apart)) > 0).all()
        assert torch.equal(load_reference(held.path).vectors, held.vectors)


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("settings", [{}, SEEDS], ids=["trajectory", "seeds"])
def test_a_reference_goes_on_where_it_was_killed(settings, monkeypatch):
    monkeypatch.setattr(collection, "REFERENCE_RUNS", 2)
    monkeypatch.setattr(StackedRuns, "together", lambda *_, **__: 2)
    run = pipeline.Run(request(task_settings=settings))
    zoo, _ = run.zoo()
    whole = run.reference(zoo)
    whole.path.unlink()
    kept, keep = [], collection.Rows.keep

    def count(self, vectors, seconds, state):
        if len(kept) == 2 and not again:
            raise Killed
        kept.append(len(vectors))
        keep(self, vectors, seconds, state)

    again = False
    monkeypatch.setattr(collection.Rows, "keep", count)
    with pytest.raises(Killed):
        run.reference(zoo)
    assert kept == [2, 2]
    assert not whole.path.exists()
    again = True
    assert torch.equal(run.reference(zoo).vectors, whole.vectors)
    assert kept == [2, 2, 1]
    assert not whole.path.with_suffix(".partial").exists()


def test_a_given_zoos_file_gives_the_same_reference(trained):
    asked, path = pipeline.run(request(task_settings=SEEDS))
    file = path.parents[2] / "home" / "zoos" / asked.artifacts.zoo.file
    shutil.copy(file, "my.zoo")
    words = ("--zoo", "my.zoo", "--samples", 4, "--held-out", 5, "--set", "task.val_size=20")
    assert (
        call("run", "--task", "fake", "--generator", "gaussian", *words, "--results", "given") == 0
    )
    (given,) = (Record.read(path) for path in Path("given").rglob("*.json"))
    assert trained == [5]
    assert given.key == asked.key
    assert given.artifacts.reference == asked.artifacts.reference
    assert given.populations["reference"] == asked.populations["reference"]


def test_of_checkpoints_made_elsewhere_there_is_no_reference(capsys):
    run = pipeline.Run(request(task_settings=SEEDS))
    zoo, _ = run.zoo()
    for number, row in enumerate(zoo.vectors):
        state = {**zoo.layout.unflatten(row), **zoo.base}
        save_file({n: t.contiguous() for n, t in state.items()}, f"{number}.safetensors")
    files = [f"{number}.safetensors" for number in range(len(zoo))]
    assert call("zoo", "import", *files, "--output", "mine.zoo") == 0
    assert "track" not in Zoo.load(Path("mine.zoo")).settings
    words = ("--zoo", "mine.zoo", "--arch", "mlp3", "--samples", 4, "--held-out", 5)
    assert call("run", "--task", "fake", "--generator", "copy", *words, "--results", "mine") == 0
    (path,) = Path("mine").rglob("*.json")
    record = Record.read(path)
    assert "reference" not in record.populations
    assert record.judge.word == "undecided"
    assert check.check(path) == []
    out = capsys.readouterr().out
    assert "there is no reference of held-out trained models" in " ".join(out.split())


def test_a_reference_of_another_form_is_refused(monkeypatch):
    wrong = torch.zeros(5, 3)
    monkeypatch.setattr(Classification, "reference", lambda *_, **__: wrong)
    with pytest.raises(BenchError, match=r"Classification\.reference returned \(5, 3\)"):
        pipeline.run(request())


def test_a_reference_whose_models_are_all_alike_tells_nothing(monkeypatch):
    monkeypatch.setattr(
        Classification, "reference", lambda self, zoo, n, **_: zoo.vectors[:1].repeat(n, 1)
    )
    record, path = pipeline.run(request(task_settings=SEEDS))
    assert record.populations["reference"].n == 5
    assert record.judge.against_reference == {}
    assert record.judge.word == "undecided"
    assert check.check(path) == []
    assert json.loads(path.read_text())["artifacts"]["reference"]
