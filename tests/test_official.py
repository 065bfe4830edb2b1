"""Official zoos: they come with a task, and every machine's records on them stand on one board."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench import plugins
from bench.cli import app
from bench.contract.zoo import Zoo
from bench.records.asked import Asked
from bench.records.report import sentences
from bench.records.request import Request
from bench.runs import official, pipeline
from bench.runs.stages import load_reference
from tasks.classification import Classification
from tasks.training.collected import Collected

SETTINGS = {"epochs": 1, "batch_size": 20, "val_size": 20}
OPTIONS = ["--task", "fake", "--k", "3", *(f"--set=task.{n}={v}" for n, v in SETTINGS.items())]


def run(task_settings=None, **values):
    settings = {**SETTINGS, **(task_settings or {})}
    usual = {"k": 3, "samples": 2, "held_out": 5, "device": "cpu", "results": Path("results")}
    asked = Request("fake", "copy", task_settings=settings, **{**usual, **values})
    return pipeline.Run(asked)


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """The file of an official zoo that the command wrote, of a seed that is not the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Collected, "official", tmp_path / "official")
    monkeypatch.setattr(
        Classification, "reference", lambda self, zoo, count, **_: zoo.vectors[[0] * 5] + 1
    )
    path = tmp_path / "official" / "fake.safetensors"
    path.parent.mkdir()
    done = CliRunner().invoke(
        app, ["collect", *OPTIONS, "--held-out=5", "--official", "--output", str(path)]
    )
    assert done.exit_code == 0, done.output
    return path


def test_a_run_takes_the_official_zoo_and_its_reference(shipped, monkeypatch, tmp_path):
    def trains(*_, **__):
        raise AssertionError("it trains")

    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(Classification, "collect", trains)
    monkeypatch.setattr(Classification, "reference", trains)
    record, _ = run().execute()
    zoo, held = Zoo.load(shipped), load_reference(official.reference_file(shipped))
    assert record.zoo.hash == zoo.hash
    assert (record.zoo.official, bool(record.zoo.collected_on)) == (True, True)
    assert record.populations["reference"].n == len(held.vectors) == 5
    kept = tmp_path / "elsewhere" / "references" / record.artifacts.reference.file
    assert torch.equal(load_reference(kept).vectors, held.vectors)
    assert any("official" in line for line in sentences(record))
    for other in ({"collect": True}, {"zoo_seed": 1}, {"k": 2}, {"task_settings": {"epochs": 2}}):
        with pytest.raises(AssertionError, match="it trains"):
            run(**other).zoo()
    fewer = run(held_out=4)
    zoo, _ = fewer.zoo()
    with pytest.raises(AssertionError, match="it trains"):
        fewer.reference(zoo)


def test_sizes_of_scoring_change_nothing_but_the_times_of_training(shipped):
    zoo, _ = run({"train_size": 10}).zoo()
    assert (zoo.hash, bool(zoo.curve)) == (Zoo.load(shipped).hash, True)
    zoo, _ = run({"val_size": 10}).zoo()
    assert (zoo.hash, zoo.curve) == (Zoo.load(shipped).hash, ())


def test_the_flag_is_printed_and_compared():
    asked = Request("digits", "copy", collect=True).asked
    assert asked.command.endswith("--generator copy --collect")
    assert asked == Asked.read(asked.command) != Request("digits", "copy").asked


SHIPPED = {
    "digits": {},
    "digits-mlp3-seeds": {"arch": "mlp3", "layers": "all", "track": "seeds"},
    "digits-ddpm": {},
    "shapes": {},
    "shapes-seg": {},
}


def test_every_shipped_zoo_is_what_its_task_would_collect():
    files = {path.name: path for path in Collected.official.iterdir()}
    names = {
        f"{name}{end}" for name in SHIPPED for end in (".safetensors", ".reference.safetensors")
    }
    assert set(files) == names
    for name, settings in SHIPPED.items():
        path = files[f"{name}.safetensors"]
        zoo, held = Zoo.load(path), load_reference(official.reference_file(path))
        task = plugins.load_task(name.removesuffix("-mlp3-seeds"), "quick", settings)
        assert official.find(task, len(zoo), 0) == path
        assert held.vectors.shape == (100, zoo.layout.dim)
        assert held.vectors.isfinite().all()
        assert (zoo.settings["official"], len(zoo.curve) >= len(zoo)) == (True, True)
