"""Statistics of batch normalization that every model gets from the same training images."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from bench import plugins
from bench.contract.zoo import Layout
from bench.errors import BadRequest
from bench.judge.align import align_zoo
from bench.runs.reference import measure
from bench.system.randomness import generator
from bench.testing import check_task
from tasks.classification import Classification
from tasks.fast.recalibration import Recalibration
from tests.standins import stir_statistics

SETTINGS = {
    "dataset": "fake", "arch": "convnet3", "layers": "all", "track": "seeds", "epochs": 1, "batch_size": 20,
    "train_size": 30, "statistics": "recalibrated",
}  # fmt: skip


def network():
    """A small network whose statistics and parameters do something."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5),
        nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 3),
    )  # fmt: skip
    stir_statistics(model)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.eval()


@pytest.fixture
def given():
    """A network, four candidates of it, and images."""
    torch.manual_seed(0)
    model = network()
    layout = Layout.of(dict(model.named_parameters()))
    return model, layout, torch.randn(4, layout.dim), torch.randn(50, 3, 8, 8)


def test_folded_candidates_do_what_torchs_statistics_of_the_images_do(given):
    model, layout, vectors, images = given
    recalibration = Recalibration(model, layout, images)
    own = recalibration.statistics(vectors)
    folded = recalibration.fold(vectors, own)
    inputs, base = torch.randn(6, 3, 8, 8), model.state_dict()
    base = {name: tensor.clone() for name, tensor in base.items()}
    for vector, other in zip(vectors, folded, strict=True):
        model.load_state_dict({**base, **layout.unflatten(vector)})
        update_bn([images], model)
        wanted = model(inputs)
        model.load_state_dict({**base, **layout.unflatten(other)})
        torch.testing.assert_close(model(inputs), wanted, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(recalibration.unfold(folded, own), vectors, atol=1e-4, rtol=1e-4)
    recalibration.together = 3
    torch.testing.assert_close(recalibration.statistics(vectors), own, atol=1e-3, rtol=1e-4)


def test_a_recalibrating_task_keeps_its_promises():
    check_task(Classification, **SETTINGS)


def test_averages_of_aligned_networks_gain_and_another_implementation_agrees(tmp_path):
    task, other = (
        plugins.load_task("digits", "quick", {**SETTINGS, "dataset": "digits", "statistics": name})
        for name in ("recalibrated", "folded")
    )
    zoo = task.collect(2, rng=generator(0), work=tmp_path / "work")
    recalibration = task.recalibration(zoo)
    vectors = recalibration.fold(zoo.vectors, recalibration.statistics(zoo.vectors))
    folded = dataclasses.replace(zoo, vectors=vectors)
    score = task.scorer(zoo, "val")
    assert torch.equal(other.scorer(folded, "val")(folded.vectors).wrong, score(zoo.vectors).wrong)
    averages = [align_zoo(one).vectors.mean(0, keepdim=True) for one in (zoo, folded)]
    found = score(averages[0]).scores.item()
    assert found > other.scorer(folded, "val")(averages[1]).scores.item() + 0.2
    by_torch = measure(task.plain(zoo), zoo.layout, averages[0][0])["accuracy"]
    assert by_torch == pytest.approx(found, abs=2e-3)
    tuned = task.finetune(zoo, zoo.vectors, steps=1, rng=generator(1))
    assert score(tuned).scores == pytest.approx(score(zoo.vectors).scores, abs=0.1)
    assert task.identity()["scoring"] == {"statistics": "recalibrated"}


def test_what_cannot_be_recalibrated_is_told_before_training(tmp_path):
    def collect(**settings):
        task = plugins.load_task("fake", "quick", {**SETTINGS, **settings})
        return task.collect(2, rng=generator(0), work=tmp_path / "work")

    with pytest.raises(BadRequest, match="the network has no batch normalization"):
        collect(arch="mlp3")
    with pytest.raises(BadRequest, match="whole networks only, and '1' is not generated"):
        collect(layers="last-norms:1")
    with pytest.raises(BadRequest, match=r"unknown statistics 'none'"):
        collect(statistics="none")
    folded = collect(statistics="folded")
    with pytest.raises(BadRequest, match="do not have recalibrated statistics"):
        plugins.load_task("fake", "quick", SETTINGS).adopt(folded, {"statistics"})
