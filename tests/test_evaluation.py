"""What the harness makes of models that are not finite, and of a task that returns what is no evaluation."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from bench.contract import Evaluation, Metric, Scorer
from bench.contract.evaluation import check_evaluation
from bench.contract.zoo import Zoo
from bench.errors import BenchError
from bench.judge.describe import describe
from bench.judge.population import GENERATED, ORIGINAL, Population, select
from bench.metrics.similarity import nearest_l2_ratio, toward_mean
from bench.records import report
from bench.records.population import Similarity
from bench.records.record import Record
from bench.records.request import Request
from bench.runs import pipeline
from bench.runs.figures import embed
from bench.runs.stages import load_population, save_population
from bench.runs.verify import differences
from bench.system.randomness import generator
from tests.broken import INF, NAN
from tests.records import parsed
from tests.tiny import Tiny

UNITS = torch.tensor([[True, False], [False, False], [True, True]])
SOUND = Evaluation(
    torch.tensor([0.1, 0.2, 0.3]).double(), UNITS, {"loss": torch.tensor([1.0, INF, 2.0])},
    not_finite=torch.tensor([0, 2, 0]), replicates=torch.tensor([[0.1, 0.2], [0.2, 0.3], [0.3, 0.2]]).double(),
)  # fmt: skip
WITHOUT = Evaluation(SOUND.scores, None, {"recall": SOUND.scores}, UNITS.double())


def test_sound_evaluations_pass():
    check_evaluation(SOUND, 3, "Mine")
    check_evaluation(WITHOUT, 3, "Mine")


FEATURES = UNITS.double()
UNSOUND = [
    ({"scores": torch.tensor([0.1, NAN, INF]).double()}, "scores with NaN or inf for 2 of 3 models"),
    ({"scores": torch.tensor([0.1, 0.2]).double()}, r"scores as torch.float64 of shape \(2,\), .*\(3\)"),
    ({"scores": torch.tensor([1, 2, 3])}, "scores as torch.int64"),
    ({"scores": [0.1, 0.2, 0.3]}, "scores as list, expected torch.float64"),
    ({"scores": torch.zeros(3, 1).double()}, r"scores as torch.float64 of shape \(3, 1\)"),
    ({"wrong": UNITS.double()}, "wrong as torch.float64"),
    ({"wrong": UNITS[:2]}, r"wrong as torch.bool of shape \(2, 2\), expected torch.bool of shape \(3, any\)"),
    ({"wrong": UNITS[:, 0]}, r"wrong as torch.bool of shape \(3,\)"),
    ({"wrong": None, "features": FEATURES.where(UNITS, NAN)}, "features with NaN or inf for 2 of 3"),
    ({"wrong": None, "features": FEATURES - 0.5}, "features below 0 for 2 of 3 models"),
    ({"wrong": None, "features": FEATURES[0]}, "features as torch.float64 of shape"),
    ({"not_finite": torch.tensor([0, -1, 0])}, "not_finite below 0 for 1 of 3"),
    ({"not_finite": torch.tensor([0.0, 1.0, 0.0])}, "not_finite as torch.float32"),
    ({"not_finite": torch.tensor([0, 1])}, "not_finite as torch.int64 of shape"),
    ({"replicates": SOUND.scores}, r"replicates as torch.float64 of shape \(3,\), .*\(3, any\)"),
    ({"replicates": FEATURES[:2]}, r"replicates as torch.float64 of shape \(2, 2\)"),
    ({"replicates": FEATURES.where(UNITS, INF)}, "replicates with NaN or inf for 2 of 3 models"),
    ({"extra": {"loss": torch.tensor([1.0, NAN, 2.0])}}, "a loss of NaN or -inf for 1 of 3"),
    ({"extra": {"loss": torch.tensor([1.0, -INF, 2.0])}}, "a loss of NaN or -inf for 1 of 3"),
    ({"extra": {"recall": torch.tensor([1.0, INF, 2.0])}}, "'recall' with NaN or inf for 1 of 3"),
    ({"extra": {"recall": torch.tensor(1.0)}}, "'recall' as torch.float32 of shape"),
    ({"extra": [1.0, 2.0]}, "extra as list, expected a mapping"),
]  # fmt: skip


def unsound(**changes):
    """Return an evaluation as nobody checked it when it was made."""
    made = object.__new__(Evaluation)
    vars(made).update(vars(SOUND) | changes)
    return made


@pytest.mark.parametrize(("changes", "message"), UNSOUND)
def test_unsound_evaluations_are_refused(changes, message):
    found = unsound(**changes)
    with pytest.raises(BenchError, match=rf"^the scorer of Mine returned {message}"):
        check_evaluation(found, 3, "Mine")


def test_replicates_are_there_where_the_metric_and_the_split_say_so():
    check_evaluation(SOUND, 3, "Mine", replicated=True)
    check_evaluation(WITHOUT, 3, "Mine", replicated=False)
    with pytest.raises(BenchError, match="returned replicates, expected none"):
        check_evaluation(SOUND, 3, "Mine", replicated=False)
    with pytest.raises(BenchError, match="returned no replicates, expected some"):
        check_evaluation(WITHOUT, 3, "Mine", replicated=True)
    resampled = Metric("mAP", scale=100, resampled="bootstrap")
    assert [resampled.replicated(split) for split in ("train", "val")] == [False, True]
    assert not Metric("accuracy").replicated("val")


def test_what_is_no_evaluation_at_all_is_refused():
    with pytest.raises(BenchError, match=r"returned dict, expected bench\.contract\.Evaluation"):
        check_evaluation({"scores": 1}, 3, "Mine")
    broken = unsound(features=FEATURES)
    with pytest.raises(BenchError, match="returned both or neither of wrong units and features"):
        check_evaluation(broken, 3, "Mine")


@dataclasses.dataclass(eq=False)
class Nameless(Tiny):
    """A foreign task whose training scores are NaN once a model is not a checkpoint."""

    def scorer(self, zoo: Zoo, split: str) -> Scorer:
        healthy = super().scorer(zoo, split)
        own = {row.numpy().tobytes() for row in zoo.vectors}

        def score(vectors: torch.Tensor) -> Evaluation:
            found = healthy(vectors)
            strange = torch.tensor([row.numpy().tobytes() not in own for row in vectors])
            bad = strange & (split == "train")
            return dataclasses.replace(found, scores=found.scores.masked_fill(bad, NAN))

        return score


def test_a_foreign_task_that_returns_nan_is_an_error_that_names_it(tmp_path):
    request = Request(
        task="tests.test_evaluation:Nameless", generator="gaussian", k=5, samples=4, results=tmp_path / "results",
    )  # fmt: skip
    with pytest.raises(
        BenchError, match=r"^the scorer of Nameless returned scores with NaN or inf for 4 of 4"
    ) as caught:
        pipeline.run(request)
    assert caught.value.exit_code == 1
    assert not list(tmp_path.rglob("*.json"))


def test_a_run_says_how_many_models_were_not_finite(tmp_path):
    request = Request(
        task="fake", generator="noise", k=4, samples=6, results=tmp_path / "results", device="cpu",
        task_settings={"epochs": 1, "batch_size": 20, "layers": "all", "track": "seeds"},
        generator_settings={"amplitude": 1e38},
    )  # fmt: skip
    record, path = pipeline.run(request)
    assert Record.read(path) == record  # its distances in weights are finite too
    assert record.generated.values == [0.0] * 6
    assert record.generated.not_finite == 6
    assert record.original.not_finite == record.populations["copy"].not_finite == 0
    assert record.original.mean > 0
    assert record.judge.word == "broken"
    text = "\n".join(report.sentences(record))
    assert "which count as wrong: 6 of 6 noise" in text


def test_a_record_from_before_the_count_agrees_and_a_wrong_count_does_not(tmp_path):
    request = Request(
        task="tests.tiny:Tiny", generator="gaussian", k=5, samples=4, results=tmp_path / "results"
    )
    record, _ = pipeline.run(request)

    def counted(claimed: int | None) -> Record:
        data = json.loads(record.to_json())
        data["populations"]["generated"]["not_finite"] = claimed
        return parsed(data)

    def problems(claimed: int | None, computed: int | None) -> list[str]:
        found = differences(counted(claimed), counted(computed))
        return [check.field for check in found if check.problem]

    assert problems(None, 2) == problems(2, 2) == []
    assert problems(1, 2) == problems(2, None) == ["populations.generated.not_finite"]


def test_counts_of_what_is_not_finite_are_kept_in_the_store(tmp_path):
    path, values = tmp_path / "file", torch.zeros(2).double()
    one = Population(GENERATED, values, UNITS[:2], not_finite=torch.tensor([0, 2]))
    save_population(one, path)
    assert load_population(path, ORIGINAL).not_finite.tolist() == [0, 2]


def test_of_models_that_are_all_broken_the_first_is_selected():
    zeros, losses = torch.zeros(1000).double(), torch.full((1000,), INF).double()
    assert select(zeros, losses) == 0
    losses[[700, 800]] = 2.0
    assert select(zeros, losses) == 700
    losses[900] = 1.0
    assert select(zeros, losses) == 900
    zeros[950] = 1e-9
    assert select(zeros, losses) == 950
    broken = Population(
        GENERATED, torch.zeros(4).double(), None, train=torch.zeros(4).double(),
        train_loss=torch.full((4,), INF).double(), not_finite=torch.tensor([3, 1, 0, 7]),
    )  # fmt: skip
    found = describe(broken, Similarity(), Metric("accuracy"), generator(0))
    assert (found.best, found.selected, found.worst, found.not_finite) == (0, 0, 0, 3)


@pytest.mark.parametrize("scale", [1e20, 1e38])
def test_distances_of_huge_vectors(scale):
    """Their squares overflow; those of other models stay as they are, to the last bit."""
    rng = generator(0)
    originals, generated = torch.randn(5, 30, generator=rng), torch.randn(4, 30, generator=rng)
    huge = generated.clone()
    huge[1:] = scale * generated[1:] / generated.abs().max()
    exact = torch.cdist(huge.double(), originals.double()).min(1).values
    usual = torch.cdist(originals.double(), originals.double()).fill_diagonal_(INF).min(1).values
    ratio = exact.quantile(0.5) / usual.quantile(0.5)
    assert nearest_l2_ratio(huge, originals) == pytest.approx(ratio.item(), rel=1e-5)
    assert nearest_l2_ratio(huge[:1], originals) == nearest_l2_ratio(generated[:1], originals)
    mean = (huge.double() - originals.double().mean(0)).norm(dim=1)
    expected = (exact / (exact + mean)).quantile(0.5).item()
    assert toward_mean(huge, originals) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("exponent", [-100, 64, 127])
def test_a_map_of_huge_or_tiny_vectors(exponent):
    """It shows shapes, not sizes: the same map, to the last bit."""
    points = torch.randn(8, 30, generator=generator(0)).clamp(-1, 1)
    maps = [embed({"points": one})["points"] for one in (points, points * 2.0**exponent)]
    assert np.array_equal(*maps)
    assert np.isfinite(maps[0]).all()
