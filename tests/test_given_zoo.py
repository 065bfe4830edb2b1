"""Runs on a zoo's file: what the file tells is recorded, and nothing else; a contradiction is an error."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.contract.zoo import Layout, Zoo
from bench.records import check, report
from bench.records.record import Record
from bench.records.request import Request
from bench.runs.pipeline import Run
from bench.runs.stages import load_reference
from bench.runs.verify import verify
from tests.standins import call

SMALL = ("--set", "task.epochs=1", "--set", "task.batch_size=20")
SEEDS = ("--layers", "all", "--track", "seeds")
RUN = ("run", "--task", "fake", "--generator", "gaussian", "--samples", "4")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store that these tests share: on one zoo, all runs have the same controls."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def _standins(monkeypatch, tmp_path, store):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(store))


def made(*words) -> Record:
    """The record of a run, by itself."""
    folder = f"results {len(words)} {hash(words)}"
    assert call(*words, "--results", folder) == 0
    (path,) = Path(folder).rglob("*.json")
    return Record.read(path)


def refused(capsys, *words) -> str:
    capsys.readouterr()
    assert call(*words) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture
def seeds(tmp_path):
    """A zoo of six independent whole networks."""
    path = tmp_path / "all.zoo"
    words = ("--k", "6", "--zoo-seed", "3", "--output", path)
    assert call("collect", "--task", "fake", *SEEDS, *SMALL, *words) == 0
    return path


def test_a_given_zoo_stands_on_the_board_of_the_run_that_collected_it(seeds):
    asked = made(*RUN, *SEEDS, *SMALL, "--k", "6", "--zoo-seed", "3")
    given = made(*RUN, "--zoo", seeds)
    assert given.key == asked.key
    assert given.id == asked.id
    assert given.task == asked.task
    assert given.zoo == asked.zoo
    assert (given.zoo.track, given.zoo.seed, given.zoo.k) == ("seeds", 3, 6)
    assert given.task.layers == "all"
    assert given.task.settings["epochs"] == 1
    assert given.generated.values == asked.generated.values
    assert given.command.endswith(f"--samples 4 --zoo {seeds}") or str(seeds) in given.command
    assert made(*RUN, "--zoo", seeds, "--k", "4").zoo.k == 4
    # What says the same is no contradiction.
    again = made(*RUN, "--zoo", seeds, *SEEDS, *SMALL, "--zoo-seed", "3", "--k", "6")
    assert again.key == asked.key


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layers", "last-norms:2"), "was collected with layers all, last-norms:2 was asked for"),
        (("--track", "trajectory"), "was collected with track seeds, trajectory was asked for"),
        (("--arch", "mlp3"), "was collected with arch convnet3, mlp3 was asked for"),
        (("--set", "task.epochs=2"), "was collected with epochs 1, 2 was asked for"),
        (("--set", "task.lr=0.5"), "was collected with lr 0.1, 0.5 was asked for"),
        (("--zoo-seed", "0"), "has seed 3, 0 was asked for: leave --zoo-seed out"),
        (("--k", "7"), "the zoo has 6 checkpoints, 7 were asked for"),
        (("--task", "mnist"), "was collected with dataset fake, mnist was asked for"),
        (("--task", "shapes"), "was collected with dataset fake, shapes was asked for"),
    ],
)  # fmt: skip
def test_a_contradiction_is_an_error(seeds, capsys, words, message):
    assert message in refused(capsys, *RUN, "--zoo", seeds, *words)


def test_other_data_of_the_same_name_are_refused(seeds, capsys):
    zoo = Zoo.load(seeds)
    dataclasses.replace(zoo, settings={**zoo.settings, "dataset_hash": "1" * 64}).save(seeds)
    assert "was collected on other data (SHA-256 1111" in refused(capsys, *RUN, "--zoo", seeds)


def test_how_many_examples_are_scored_is_the_runs_own(seeds, capsys):
    few = made(*RUN, "--zoo", seeds, "--set", "task.train_size=7")
    assert (few.protocol.train_size, few.protocol.val_size) == (7, 40)
    assert few.timing.sgd_s is not None
    # Scores along SGD's way are of all 40 images: they say nothing of a score on 10.
    fewer = made(*RUN, "--zoo", seeds, "--set", "task.val_size=10")
    assert fewer.protocol.val_size == 10
    assert fewer.timing.sgd_s is None
    assert fewer.timing.speedup is None
    assert "scored with another val_size" in capsys.readouterr().err


# Made elsewhere ----------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(seeds, tmp_path):
    """The checkpoints of that zoo as state dicts that somebody else might have written; returns their zoo."""
    zoo = Zoo.load(seeds)
    for number, row in enumerate(zoo.vectors):
        state = {**zoo.layout.unflatten(row), **zoo.base}
        save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / f"{number}.safetensors")
    files = [tmp_path / f"{number}.safetensors" for number in range(len(zoo))]
    assert call("zoo", "import", *files, "--output", tmp_path / "mine.zoo") == 0
    return tmp_path / "mine.zoo"


def test_of_imported_checkpoints_nothing_is_recorded_that_is_not_known(elsewhere, capsys):
    record = made(*RUN, "--zoo", elsewhere)
    assert (record.zoo.k, record.zoo.track, record.zoo.seed) == (6, "imported", None)
    assert record.task.layers == record.task.settings["layers"] == "all"
    assert record.task.settings["track"] == "imported"
    assert record.task.settings["epochs"] is None
    assert record.timing.collect_s is None
    assert made(*RUN, "--zoo", elsewhere, "--layers", "all").key == record.key
    message = refused(capsys, *RUN, "--zoo", elsewhere, "--layers", "linear")
    assert "the zoo holds the layers 'all', 'linear' were asked for" in message
    assert "has no track" in refused(capsys, *RUN, "--zoo", elsewhere, "--track", "seeds")
    assert "does not say its seed" in refused(capsys, *RUN, "--zoo", elsewhere, "--zoo-seed", "1")


def test_a_zoo_of_another_network_is_refused_before_anything_is_fitted(elsewhere, capsys, tmp_path):
    assert "it holds '" in refused(capsys, *RUN, "--zoo", elsewhere, "--arch", "mlp3")
    zoo, path = Zoo.load(elsewhere), tmp_path / "other.zoo"
    names = tuple(f"x.{name}" for name in zoo.layout.names)
    dataclasses.replace(zoo, layout=Layout(names, zoo.layout.shapes)).save(path)
    message = refused(capsys, *RUN, "--zoo", path)
    assert f"it holds '{names[0]}', parameters of the network are named like '" in message
    dataclasses.replace(zoo, base={}).save(path)
    assert "does not fit convnet3 on fake: " in refused(capsys, *RUN, "--zoo", path)
    dataclasses.replace(zoo, settings={"norm_eps": 0.001}).save(path)
    assert "import it with --norm-eps 1e-05" in refused(capsys, *RUN, "--zoo", path)


def test_whole_networks_with_normalization_are_scored_as_they_were(elsewhere, tmp_path):
    """Statistics that differ from one checkpoint to the next, and prefixes, as other programs write them."""
    zoo, networks, folder = Zoo.load(elsewhere), [], tmp_path / "theirs"
    folder.mkdir()
    for number, row in enumerate(zoo.vectors):
        state = {**zoo.base, **zoo.layout.unflatten(row)}
        for name in [name for name in state if name.endswith("running_mean")]:
            state[name] = state[name] + 0.1 * number
            variance = name.replace("running_mean", "running_var")
            state[variance] = state[variance] * (1 + number)
        torch.save({f"module.{n}": t for n, t in state.items()}, folder / f"mlp_seed{number}.pth")
        networks.append(state)
    assert call("zoo", "import", folder, "--output", tmp_path / "mine.zoo") == 0
    run = Run(Request(task="fake", generator="copy", zoo=tmp_path / "mine.zoo", held_out=0))
    read, _ = run.zoo()
    assert run.task.layers == "all"
    scores = run.scorer(read, "val")(read.vectors).scores.tolist()
    plain = run.task.problem.blank()
    for state, score in zip(networks, scores, strict=True):
        plain.load_state_dict(state)
        assert run.task.score(plain) == pytest.approx(score, abs=1.01 / 40)


def test_a_run_on_a_given_zoo_verifies(elsewhere, seeds, monkeypatch, tmp_path):
    for path in (elsewhere, seeds):
        folder = tmp_path / f"of {path.stem}"
        assert call(*RUN, "--zoo", path, "--results", folder) == 0
        (file,) = folder.rglob("*.json")
        assert call("verify", file, "--zoo", path, "--from-seed") == 0


def test_an_older_file_without_a_seed_says_none(seeds, tmp_path):
    zoo = Zoo.load(seeds)
    settings = {n: v for n, v in zoo.settings.items() if n != "zoo_seed"}
    dataclasses.replace(zoo, settings=settings).save(tmp_path / "older.zoo")
    record = made(*RUN, "--zoo", tmp_path / "older.zoo")
    assert record.zoo.seed is None
    assert record.zoo.track == "seeds"
    assert torch.equal(Zoo.load(tmp_path / "older.zoo").vectors, zoo.vectors)
    assert json.loads(record.to_json())["zoo"]["k"] == 6


# Held out by run -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_run(store, tmp_path_factory):
    """Two zoos of the same twelve checkpoints, made elsewhere: of six runs of two each, and of an unknown number."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(store))
        words = ("--k", "12", "--zoo-seed", "3", "--output", folder / "all.zoo")
        assert call("collect", "--task", "fake", *SEEDS, *SMALL, *words) == 0
        zoo = Zoo.load(folder / "all.zoo")
        for number, row in enumerate(zoo.vectors):
            state = {**zoo.layout.unflatten(row), **zoo.base}
            path = folder / f"run{number // 2}" / f"{number:02}.safetensors"
            path.parent.mkdir(exist_ok=True)
            save_file({n: t.contiguous() for n, t in state.items()}, path)
        files = [folder / f"run{number}" for number in range(6)]
        for name, more in (("runs.zoo", ("--runs", "folder")), ("unknown.zoo", ())):
            assert call("zoo", "import", *files, *more, "--output", folder / name) == 0
    return folder


def test_whole_runs_of_imported_checkpoints_are_the_reference(by_run, capsys):
    words = ("--zoo", by_run / "runs.zoo", "--held-out", "3")
    folder = Path("results")
    assert call(*RUN, *words, "--results", folder) == 0
    out = " ".join(capsys.readouterr().out.split())
    (path,) = folder.rglob("*.json")
    record = Record.read(path)
    whole = Zoo.load(by_run / "runs.zoo")
    left, held = whole.parted(4)
    assert (len(left), len(held)) == (8, 4)
    assert not set(left.runs) & set(held.runs)
    # Two runs have three rows or more; the hash is that of the rows that generators see.
    assert (record.zoo.k, record.zoo.hash) == (8, left.hash)
    assert record.zoo.hash != whole.hash
    assert (record.protocol.held_out, record.populations["reference"].n) == (4, 4)
    assert record.reference.model_dump() == {"origin": "other runs", "runs": 2}
    assert "reference: 4 rows of 2 runs of the zoo's file" in out
    assert "fewer than 5 runs" in out
    kept = load_reference(
        Path(os.environ["BENCH_HOME"]) / "references" / record.artifacts.reference.file
    )
    assert torch.equal(kept.vectors, held.vectors)
    assert check.check(path) == []
    checks = verify(record, zoo=by_run / "runs.zoo", from_seed=True)
    assert [one for one in checks if one.problem] == []
    assert "reference weights" in {one.field for one in checks}


def test_the_request_of_held_out_rows(by_run):
    def asked(**fields):
        return Request(task="fake", generator="gaussian", zoo=by_run / "runs.zoo", **fields)

    usual = asked()
    assert (usual.k, usual.held_out) == (12, 0)  # the task's own number is 0
    assert asked(held_out=0).asked == usual.asked
    four = asked(held_out=4)
    assert (four.k, four.held_out) == (8, 4)
    assert asked(held_out=3).asked == four.asked
    assert asked(held_out=5).asked == asked(held_out=6).asked != four.asked
    assert asked(held_out=5).asked.held_out == 6
    assert (asked(held_out=5).k, asked(held_out=3, k=2).k) == (6, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--held-out", "11"), "at least one has to stay: lower --held-out"),
        (("--held-out", "-1"), "held_out is -1, expected 0 or more"),
        (("--held-out", "4", "--k", "9"), "the zoo has 8 checkpoints beside the 4 that are held out, 9 were asked for"),
    ],
)  # fmt: skip
def test_too_many_held_out_rows_are_refused(by_run, capsys, words, message):
    assert message in refused(capsys, *RUN, "--zoo", by_run / "runs.zoo", *words)


def test_a_report_without_runs_says_how_to_get_a_reference(by_run, capsys):
    words = ("run", "--task", "fake", "--generator", "copy", "--samples", "4")
    record = made(*words, "--zoo", by_run / "unknown.zoo", "--held-out", "3")
    assert (record.zoo.k, record.reference, record.judge.word) == (12, None, "undecided")
    (line,) = [one for one in report.sentences(record) if one.startswith("verdict")]
    assert "import those of several runs with --runs" in line


def test_a_zoo_that_does_not_fit_costs_no_fit(seeds, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    zoo = Zoo.load(seeds)
    names = (f"{zoo.layout.names[0]}x", *zoo.layout.names[1:])
    for wrong in (
        dataclasses.replace(zoo, layout=Layout(names, zoo.layout.shapes)),
        dataclasses.replace(zoo, base={"x": torch.zeros(1)}),
    ):
        wrong.save(tmp_path / "wrong.zoo")
        refused(capsys, *RUN, "--zoo", tmp_path / "wrong.zoo")
    assert not list((tmp_path / "home").rglob("generated/*.safetensors"))
