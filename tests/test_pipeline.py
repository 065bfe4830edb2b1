import dataclasses
import json
import shutil
import sys
import time
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from bench import declared
from bench.contract import Generator
from bench.contract.zoo import Zoo
from bench.errors import BadRequest, BenchError
from bench.judge.population import GENERATED, ORIGINAL
from bench.records.record import Record
from bench.records.request import Request
from bench.runs import pipeline
from bench.runs.assemble import heading
from bench.runs.stages import load_sampled
from bench.system import identity
from tasks import classification

SETTINGS = {"epochs": 1, "batch_size": 20}


def request(tmp_path, generator="gaussian", **values) -> Request:
    task = {**SETTINGS, **values.pop("task_settings", {})}
    defaults = {"k": 5, "samples": 4, "results": tmp_path / "results"}
    return Request(task="fake", generator=generator, task_settings=task, **{**defaults, **values})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The record of a finished run, and its store, which holds its zoo and all that was scored."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder / "home"))
        record, path = pipeline.run(request(folder))
    return SimpleNamespace(record=record, path=path, home=folder / "home")


@pytest.fixture
def first(finished, tmp_path) -> Record:
    """The record of that run, whose store is this test's own."""
    shutil.copytree(finished.home, tmp_path / "home")
    return finished.record


def without_time(record: Record) -> dict:
    data = json.loads(record.to_json())
    for part in ("timing", "created", "artifacts", "environment"):
        data.pop(part)
    return data


def test_a_run_writes_a_record_that_reads_back(finished):
    record, path = finished.record, finished.path
    assert path == finished.home.parent / "results" / record.key / f"{record.id}.json"
    assert Record.read(path) == record
    assert record.zoo.k == 5
    assert record.generated.n == 4
    assert record.populations["finetune"].n == 1
    assert list(record.controls) == [str(control) for control in declared.controls()]
    assert all(one.similarity.originals for one in record.controls.values())
    assert record.timing.collect_s > 0
    assert record.populations["copy"].best <= record.original.best


def test_the_same_command_gives_the_same_record(tmp_path, finished):
    second, _ = pipeline.run(request(tmp_path))
    assert without_time(finished.record) == without_time(second)


def test_another_seed_changes_the_generated_models_and_nothing_else(tmp_path, first):
    second, _ = pipeline.run(request(tmp_path, seed=1))
    assert first.key == second.key
    assert first.id != second.id
    assert first.artifacts.generated != second.artifacts.generated
    assert first.artifacts.zoo == second.artifacts.zoo
    assert first.controls == second.controls
    assert first.original == second.original


def test_controls_are_the_same_whatever_was_generated(tmp_path, finished):
    """Not only their scores: their intervals too, beside one generated model or four."""
    many = finished.record
    one, _ = pipeline.run(request(tmp_path, "average"))
    assert one.generated.n == 1
    assert many.key == one.key
    assert many.controls == one.controls
    assert many.original == one.original


@pytest.mark.parametrize(
    "change",
    [{"k": 4}, {"samples": 3}, {"zoo_seed": 1}, {"task_settings": {"layers": "linear"}},
     {"task_settings": {"val_size": 10}}],
)  # fmt: skip
def test_what_must_be_equal_to_be_compared_changes_the_key(tmp_path, first, change):
    run = pipeline.Run(request(tmp_path, **change))
    zoo, _ = run.zoo()
    assert heading(run, zoo).key != first.key


def test_a_second_run_uses_every_stage_of_the_first(tmp_path, first, monkeypatch):
    for name in ("collect", "scorer", "finetune"):
        monkeypatch.setattr(classification.Classification, name, None)  # calling it would fail
    second, _ = pipeline.run(request(tmp_path))
    assert without_time(first) == without_time(second)
    assert first.timing == second.timing
    with pytest.raises(TypeError):
        pipeline.run(request(tmp_path, force=True))


def test_a_damaged_stage_is_made_again(tmp_path, first):
    home = tmp_path / "home"
    for path in home.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    second, _ = pipeline.run(request(tmp_path))
    assert without_time(first) == without_time(second)


def test_originals_evaluated_once_give_copies_the_same_scores(tmp_path, first):
    run = pipeline.Run(request(tmp_path))
    zoo, _ = run.zoo()
    originals = run.evaluate(zoo, zoo.vectors, ORIGINAL)
    again = run.evaluate(zoo, zoo.vectors[[3, 1]], GENERATED)
    assert again.origin == GENERATED
    assert torch.equal(again.wrong, originals.wrong[[3, 1]])
    assert torch.equal(again.val, originals.val[[3, 1]])


def test_counts_of_samples_share_a_fit_and_are_what_they_are_alone(tmp_path, monkeypatch):
    run = pipeline.Run(request(tmp_path))
    zoo, _ = run.zoo()
    alone = {
        n: pipeline.Run(request(tmp_path)).sample(run.generator, "gaussian", zoo, n).vectors
        for n in (3, 6)
    }
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "another home"))
    fits = []
    fit = type(run.generator).fit
    monkeypatch.setattr(
        type(run.generator), "fit", lambda self, *a, **k: fits.append(1) or fit(self, *a, **k)
    )
    shared = {n: run.generate(zoo, n) for n in (3, 6)}
    assert fits == [1]
    assert all(torch.equal(shared[n].vectors, alone[n]) for n in (3, 6))
    assert shared[3].fit_s == shared[6].fit_s
    pipeline.Run(request(tmp_path, seed=1)).generate(zoo)
    run.generate(zoo.head(4))
    assert len(fits) == 3  # another seed, another zoo


def test_times_leave_out_what_is_computed_once_for_all_models(tmp_path, finished, monkeypatch):
    """A scorer is made once a split, outside of the time that scoring takes, and called once a population."""
    made, called = [], []
    scorer = classification.Classification.scorer

    def counted(self, zoo, split):
        time.sleep(0.3)
        made.append(split)
        score = scorer(self, zoo, split)
        return lambda vectors: called.append((split, len(vectors))) or score(vectors)

    monkeypatch.setattr(classification.Classification, "scorer", counted)
    shutil.copytree(finished.home / "zoos", tmp_path / "home" / "zoos")
    run = pipeline.Run(request(tmp_path))
    zoo, _ = run.zoo()
    made.clear()
    called.clear()
    first = run.evaluate(zoo, zoo.vectors, ORIGINAL)
    run.evaluate(zoo, zoo.vectors + 1, GENERATED)
    assert made == ["train", "val"]
    assert called == [("train", 5), ("val", 5), ("train", 5), ("val", 5)]
    assert max(first.select_s, first.score_s) < 0.3


def test_a_zoo_from_a_file(tmp_path):
    collected, _ = pipeline.Run(request(tmp_path, k=6)).zoo()
    collected.save(tmp_path / "mine.zoo")
    record, _ = pipeline.run(request(tmp_path, zoo=tmp_path / "mine.zoo", k=3))
    assert record.zoo.k == 3
    assert record.zoo.hash == collected.head(3).hash
    assert f"--zoo {tmp_path / 'mine.zoo'}" in record.command
    with pytest.raises(BadRequest, match="the zoo has 6 checkpoints, 7 were asked for"):
        pipeline.run(request(tmp_path, zoo=tmp_path / "mine.zoo", k=7))


def test_a_zoo_without_its_base_is_refused_with_a_hint(tmp_path, first):
    collected, _ = pipeline.Run(request(tmp_path)).zoo()
    Zoo(collected.vectors, collected.layout).save(tmp_path / "half.zoo")
    with pytest.raises(BadRequest, match="does not fit convnet3"):
        pipeline.run(request(tmp_path, zoo=tmp_path / "half.zoo"))


@dataclasses.dataclass
class Broken(Generator):
    """A generator that breaks its contract."""

    returned: ClassVar[Any] = None

    def fit(self, zoo, *, rng):
        return self

    def sample(self, n, *, rng):
        return self.returned


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (
            torch.zeros(4, 3),
            r"returned \(4, 3\) torch.float32, expected float32 of shape \(4, 128\)",
        ),
        (torch.zeros(4, 128).double(), "torch.float64"),
        (torch.full((4, 128), torch.nan), "4 of 4 vectors with NaN or inf"),
        (None, "NoneType"),
    ],
)
def test_samples_that_break_the_contract(tmp_path, first, monkeypatch, vectors, message):
    monkeypatch.setattr(Broken, "returned", vectors)
    run = pipeline.Run(request(tmp_path))
    zoo, _ = run.zoo()
    with pytest.raises(BenchError, match=message):
        run.sample(Broken(), "broken", zoo, 4)


def test_the_recorded_command_repeats_the_run(tmp_path):
    asked = request(
        tmp_path,
        "noise",
        seed=3,
        zoo_seed=2,
        generator_settings={"amplitude": 0.5},
        task_settings={"layers": "a b*"},
    )
    assert asked.asked.command == (
        "python -m bench run --task fake --generator noise --layers 'a b*' --k 5 --samples 4 "
        "--seed 3 --zoo-seed 2 --set amplitude=0.5 --set task.epochs=1 --set task.batch_size=20"
    )


SHIFTED = """
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.contract import Generator
from shifted_by import SHIFT


@dataclass
class Shifted(Generator):
    prior: str | None = None

    def fit(self, zoo, *, rng):
        own = float(Path(self.prior).read_text()) if self.prior else 0.0
        self.vectors_ = zoo.vectors + SHIFT + own + float(Path(__file__).with_name("fixed.txt").read_text())
        return self

    def sample(self, n, *, rng):
        return self.vectors_[:1].repeat(n, 1)
"""


def test_an_edit_of_anything_that_a_generator_reads_is_a_new_result(tmp_path, first, monkeypatch):
    """A second file, a file that a hyperparameter names, and one that the code names."""
    monkeypatch.syspath_prepend(tmp_path)
    files = {
        "shifted.py": SHIFTED,
        "shifted_by.py": "SHIFT = 0.0\n",
        "prior.txt": "0",
        "fixed.txt": "0",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    prior = {"prior": str(tmp_path / "prior.txt")}

    def made():
        for name in ("shifted", "shifted_by"):
            sys.modules.pop(name, None)
        record, _ = pipeline.run(request(tmp_path, "shifted:Shifted", generator_settings=prior))
        weights = tmp_path / "home" / "generated" / record.artifacts.generated.file
        return record, load_sampled(weights).vectors[0, 0].item()

    own, weight = made()
    assert made()[0].id == own.id
    seen = [own.id]
    for name, text in (("shifted_by.py", "SHIFT = 1.0\n"), ("prior.txt", "2"), ("fixed.txt", "4")):
        (tmp_path / name).write_text(text)
        record, moved = made()
        added = {"shifted_by.py": 1, "prior.txt": 3, "fixed.txt": 7}[name]
        assert moved == pytest.approx(weight + added)
        assert record.key == first.key
        assert record.controls == first.controls
        seen.append(record.id)
    assert len(set(seen)) == 4


def test_a_zoo_and_its_scores_are_those_of_the_tasks_code(tmp_path, monkeypatch):
    """The store finds neither after the task's code, or a library, has changed."""
    run = pipeline.Run(request(tmp_path))
    zoo, path = run.zoo()
    run.evaluate(zoo, zoo.vectors, ORIGINAL)
    scored = set((tmp_path / "home" / "evaluated").glob("*.safetensors"))
    assert pipeline.Run(request(tmp_path)).zoo()[1] == path
    monkeypatch.setattr(identity.Code, "of", lambda *_: "another")
    again = pipeline.Run(request(tmp_path))
    assert again.zoo()[1] != path
    again.evaluate(zoo, zoo.vectors, ORIGINAL)
    assert len(set((tmp_path / "home" / "evaluated").glob("*.safetensors")) - scored) == 1
    monkeypatch.setattr(identity, "libraries", lambda: ("torch 0",))
    assert pipeline.Run(request(tmp_path)).zoo()[1] not in (path, again.zoo()[1])
