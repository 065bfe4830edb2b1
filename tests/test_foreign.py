"""Generators that change what they are given, or the process that they run in: no number may show it."""

import dataclasses
import json
import os
import random
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench.contract import Generator
from bench.contract.zoo import Zoo
from bench.errors import BadRequest, BenchError
from bench.judge.population import GENERATED
from bench.records.record import Record
from bench.records.request import Request
from bench.runs import foreign, pipeline
from tasks import classification
from tests.standins import call

SETTINGS = {"epochs": 1, "batch_size": 20}


@dataclasses.dataclass
class Rude(Generator):
    """Copies, and on the way does all that ``how`` says, in the method that ``when`` says."""

    how: str = "nothing"
    when: str = "never"

    def fit(self, zoo, *, rng):
        self.zoo_, self.vectors_ = zoo, zoo.vectors.clone()
        self._do("fit")
        return self

    def sample(self, n, *, rng):
        self._do("sample")
        rows = torch.randint(len(self.vectors_), (n,), generator=rng)
        return self.vectors_[rows]

    def _do(self, when):
        if when == self.when:
            for way in self.how.split("+"):
                self._act(way)

    def _act(self, way):
        zoo = self.zoo_
        match way:
            case "normalise":
                zoo.vectors.sub_(zoo.vectors.mean(0)).div_(zoo.vectors.std(0) + 1e-3)
            case "numpy":
                zoo.vectors.numpy()[:] = 0
            case "base":
                for tensor in zoo.base.values():
                    tensor.zero_()
                zoo.base.clear()
            case "layout":
                object.__setattr__(zoo.layout, "names", zoo.layout.names[::-1])
                object.__setattr__(zoo.layout, "shapes", zoo.layout.shapes[::-1])
            case "facts":
                zoo.settings.update(track="seeds", zoo_seed=9, dataset_hash="0" * 64)
                zoo.__dict__["hash"] = "0" * 64
                object.__setattr__(zoo, "curve", ())
            case "process":
                torch.set_default_dtype(torch.float64)
                torch.set_grad_enabled(False)
                torch.set_num_threads(1)
                torch.set_float32_matmul_precision("medium")
                torch.manual_seed(5)
                np.random.seed(5)  # noqa: NPY002 - what such code does
                random.seed(5)
                os.chdir("/")


def request(folder, generator="copy", **values):
    return Request("fake", generator, SETTINGS, k=5, samples=4, results=folder, **values)


def facts(record: Record) -> dict:
    data = json.loads(record.to_json())
    return {n: data[n] for n in ("key", "task", "zoo", "populations", "judge")}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """What an honest run of the same generator says, its store, and one that holds nothing but the zoo."""
    folder = tmp_path_factory.mktemp("honest")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder / "zoo"))
        pipeline.Run(request(folder)).zoo()
        shutil.copytree(folder / "zoo", folder / "home")
        patch.setenv("BENCH_HOME", str(folder / "home"))
        record, _ = pipeline.run(request(folder / "a", f"{__name__}:Rude"))
    return SimpleNamespace(record=record, home=folder / "home", zoo=folder / "zoo")


# Several ways in one run: each changes something else, so that none hides what another does.
WAYS = ("normalise+base+layout", "numpy+facts+process")


@pytest.mark.parametrize("when", ["fit", "sample"])
@pytest.mark.parametrize("ways", WAYS)
def test_what_a_generator_does_to_its_zoo_reaches_no_number(tmp_path, honest, ways, when):
    shutil.copytree(honest.zoo, tmp_path / "home")  # everything else is computed anew
    here, before = os.getcwd(), [read() for read, _ in foreign._SETTINGS]
    settings = {"how": ways, "when": when}
    rude, _ = pipeline.run(request(tmp_path / "b", f"{__name__}:Rude", generator_settings=settings))
    assert before == [read() for read, _ in foreign._SETTINGS]
    assert os.getcwd() == here
    assert facts(rude) == facts(honest.record)
    # The next run finds the controls in the store.
    following, _ = pipeline.run(request(tmp_path / "c"))
    assert following.controls == honest.record.controls
    assert following.original == honest.record.original
    assert following.zoo == honest.record.zoo


def test_what_code_does_to_the_process_ends_with_it():
    rude = Rude("process", "fit")
    rude.zoo_ = None
    before = [repr(read()) for read, _ in (*foreign._SETTINGS, *foreign._SOURCES)]

    def doing():
        with foreign.preserved():
            rude._do("fit")
            assert torch.get_default_dtype() == torch.float64
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        doing()
    assert [repr(read()) for read, _ in (*foreign._SETTINGS, *foreign._SOURCES)] == before


@dataclasses.dataclass
class Restless(Generator):
    """Changes a hyperparameter while it is fitted."""

    width: int = 8

    def fit(self, zoo, *, rng):
        self.width = min(self.width, len(zoo))
        self.vectors_ = zoo.vectors
        return self

    def sample(self, n, *, rng):
        return self.vectors_[:1].repeat(n, 1)


def test_hyperparameters_that_change_are_refused(tmp_path, honest):
    shutil.copytree(honest.home, tmp_path / "home")
    with pytest.raises(BenchError, match="Restless changed its own hyperparameters"):
        pipeline.run(request(tmp_path, f"{__name__}:Restless"))
    assert not list(tmp_path.rglob("*.json"))
    pipeline.run(request(tmp_path, f"{__name__}:Restless", generator_settings={"width": 5}))


@dataclasses.dataclass
class Hoarding(Generator):
    """Gives away a buffer that it uses again, and changes what it is shown."""

    has_latents = True
    has_path = True

    def fit(self, zoo, *, rng):
        self.buffer_, self.vectors_ = torch.zeros(64, zoo.layout.dim), zoo.vectors
        return self

    def sample(self, n, *, rng):
        rows = torch.randint(len(self.vectors_), (n,), generator=rng)
        self.buffer_[:n] = self.vectors_[rows]
        return self.buffer_[:n]

    def latents(self, vectors):
        vectors.zero_()
        return vectors[:, :2] + torch.arange(len(vectors))[:, None]

    def sampling_path(self, n, steps, *, rng):
        self.buffer_.zero_()
        return torch.randn(n, steps, self.buffer_.shape[1], generator=rng)


def test_samples_are_what_they_were_when_they_were_returned(tmp_path, honest):
    shutil.copytree(honest.zoo, tmp_path / "home")
    run = pipeline.Run(request(tmp_path, f"{__name__}:Hoarding"))
    zoo, _ = run.zoo()
    made = run.generate(zoo)
    assert all(any(torch.equal(row, one) for one in zoo.vectors) for row in made.vectors)
    zoo.check_unchanged()


@pytest.mark.parametrize(
    ("method", "result", "message"),
    [
        (
            "latents",
            None,
            "latents returned <class 'NoneType'>, expected finite numbers of 5 models",
        ),
        ("latents", torch.zeros(5), r"latents returned \(5,\) torch.float32"),
        ("latents", torch.full((5, 2), torch.nan), "expected finite numbers"),
        ("latents", torch.zeros(5, 2, dtype=torch.int64), "torch.int64"),
        ("sampling_path", torch.zeros(5, 3), "in 3 dimensions"),
    ],
)
def test_views_that_are_none_cost_a_figure_and_no_run(
    tmp_path, honest, monkeypatch, capsys, method, result, message
):
    shutil.copytree(honest.zoo, tmp_path / "home")
    monkeypatch.setattr(Hoarding, method, lambda *_, **__: result)
    run = pipeline.Run(request(tmp_path, f"{__name__}:Hoarding"))
    made = run.generate(run.zoo()[0])
    assert {name.partition(".")[0] for name in made.views} == {
        "latents": {"path"}, "sampling_path": {"latent"}
    }[method]  # fmt: skip
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.zeros(4, 3).to_sparse(), "sparse"),
        (torch.zeros(4, 3, device="meta"), "on meta"),
        (torch.zeros(3, 3), r"\(3, 3\)"),
    ],
)
def test_samples_that_are_no_plain_matrix(vectors, message, zoo):
    small = dataclasses.replace(
        zoo, vectors=zoo.vectors[:, :3], layout=type(zoo.layout)(("a",), ((3,),))
    )
    with pytest.raises(BenchError, match=message):
        foreign.check_vectors(vectors, 4, small, "Mine.sample")


def test_a_task_that_changes_a_zoo_or_the_models_it_scores_is_refused(
    tmp_path, honest, monkeypatch
):
    shutil.copytree(honest.zoo, tmp_path / "home")
    zoo, _ = pipeline.Run(request(tmp_path)).zoo()
    scorer = classification.Classification.scorer

    def changing(what):
        def changed(self, zoo, split):
            own = scorer(self, zoo, split)

            def score(vectors):
                found = own(vectors)
                (zoo.vectors if what == "zoo" else vectors).add_(1)
                return found

            return score

        return changed

    for what, message in (
        ("models", "changed the models"),
        ("zoo", "was changed while it was in use"),
    ):
        monkeypatch.setattr(classification.Classification, "scorer", changing(what))
        with pytest.raises(BenchError, match=message):
            pipeline.Run(request(tmp_path)).evaluate(zoo, zoo.vectors + 0.5, GENERATED)
    assert not list((tmp_path / "home" / "evaluated").glob("*.safetensors"))


def test_a_copy_of_a_zoo_shares_nothing(zoo):
    made = Zoo(zoo.vectors, zoo.layout, {"a": torch.ones(2)}, settings={"b": [1]})
    copy = made.copy()
    assert copy.hash == made.hash
    copy.vectors.zero_()
    copy.base["a"].zero_()
    copy.settings["b"].append(2)
    made.check_unchanged()
    assert made.settings == {"b": [1]}
    made.base["a"][0] = 2
    with pytest.raises(BenchError, match="was changed while it was in use"):
        made.check_unchanged()


class Duck:
    """Looks like a generator."""

    def fit(self, zoo, *, rng):
        return self

    def sample(self, n, *, rng):
        return None


Quack = dataclasses.dataclass(Duck)


def test_what_merely_looks_like_a_generator_is_told_in_one_line(tmp_path, capsys):
    with pytest.raises(BadRequest, match=r"derive the class from bench.contract.Generator$"):
        pipeline.Run(request(tmp_path, f"{__name__}:Quack"))
    assert call("run", "--task", "fake", "--generator", f"{__name__}:Quack") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
