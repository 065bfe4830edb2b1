"""What every task promises, and what those that train their checkpoints here do besides, on fake data."""

import itertools
import os
from pathlib import Path

import pytest
import torch

from bench import plugins
from bench.contract.zoo import Zoo
from bench.errors import BadRequest
from bench.system.randomness import generator
from bench.testing import BrokenPromise, check_task
from bench.testing.tasks import PROMISES
from tasks.classification import Classification
from tasks.training import collection, rows, steps
from tests import wrong
from tests.standins import QUICK

counter = itertools.count()
# The task of each class that is held to every promise; others differ from it in their settings.
FULL = ("fake", "fake-boxes", "fake-masks", "digits-ddpm")


def work_folder() -> Path:
    return Path(os.environ["BENCH_HOME"]) / "work" / str(next(counter))


def make(name="fake", **settings):
    kind = plugins.load_task(name, "quick", {}).kind
    return plugins.load_task(name, "quick", {**QUICK[kind], **settings})


def settings_of(name):
    """Return a named task's settings, on few data and for a moment."""
    variant = plugins.tasks()[name]
    return {**variant.settings, **QUICK[plugins.task_class(name).kind]}


@pytest.mark.parametrize("name", FULL)
def test_every_task_keeps_its_promises(name):
    check_task(plugins.task_class(name), **settings_of(name))


def test_every_named_task_is_described_and_of_a_class_that_is_held_to_its_promises():
    classes = {plugins.task_class(name) for name in FULL}
    for name, variant in plugins.tasks().items():
        assert variant.about, name
        assert plugins.task_class(name) in classes, name
        assert plugins.load_task(name, "quick", settings_of(name)).identity()["dataset"], name


def test_the_right_one_breaks_none():
    check_task(wrong.RightTask)
    check_task(wrong.RightTask, spread=0.5)


def test_replicates_are_of_the_score_and_all_different():
    check_task(wrong.Resampled)
    with pytest.raises(BrokenPromise, match="has replicates of mean"):
        check_task(wrong.Doubled)
    with pytest.raises(BrokenPromise, match="no replicate differs from the score"):
        check_task(wrong.Unmoved)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_every_promise_can_be_broken(promise):
    cls = wrong.TASKS[promise.__name__]
    with pytest.raises(BrokenPromise) as caught:
        check_task(cls)
    message = str(caught.value)
    assert message.startswith(f"{cls.__name__} breaks '{promise.__name__.replace('_', ' ')}': ")
    assert "\n" not in message


def test_what_is_no_task_is_told_in_one_line():
    with pytest.raises(BrokenPromise, match=r"^Right is not derived from bench.contract.Task$"):
        check_task(wrong.Right)


def test_accuracy_is_the_share_of_images_that_are_not_wrong():
    task = make()
    zoo = task.collect(2, rng=generator(0), work=work_folder())
    assert zoo.vectors.shape == (2, 128)
    for split in ("train", "val"):
        result = task.scorer(zoo, split)(zoo.vectors)
        assert result.wrong.shape == (2, task.size(split))
        assert torch.allclose(result.scores, 1 - result.wrong.double().mean(1))
        assert result.extra["loss"].shape == (2,)


ZOOS = [
    ("fake", "mlp3", "all", "seeds"),
    ("fake", "mlp3", "all", "trajectory"),
    ("fake", "convnet3", "all", "seeds"),
    ("fake", "convnet3", "last-norms:2", "seeds"),
    ("fake", "convnet3", "all", "trajectory"),
    ("fake", "resnet18", "last-norms:2", "trajectory"),
    ("fake", "resnet50", "last-norms:2", "trajectory"),
    ("fake", "vit_tiny", "last-norms:2", "trajectory"),
    ("fake", "convnext_tiny", "last-norms:2", "trajectory"),
    ("fake-boxes", "fasterrcnn_small", "head", "trajectory"),
    ("fake-boxes", "fasterrcnn_small", "all", "seeds"),
    ("fake-boxes", "fasterrcnn_small", "last-norms:1", "seeds"),
    ("fake-boxes", "fcos_small", "head", "trajectory"),
    ("fake-boxes", "fcos_small", "head.regression_head.*", "trajectory"),
    ("fake-masks", "fcn_small", "head", "trajectory"),
    ("fake-masks", "fcn_small", "classifier.*", "trajectory"),
    ("fake-masks", "fcn_small", "last-norms:2", "seeds"),
    ("fake-masks", "fcn_small", "all", "seeds"),
]


@pytest.mark.parametrize(("name", "arch", "layers", "track"), ZOOS)
def test_reloading_a_row_gives_back_its_recorded_score(name, arch, layers, track, tmp_path):
    settings = {"name": name, "arch": arch, "layers": layers, "track": track}
    if name == "fake":
        settings |= {"batch_size": 60, "val_size": 20}  # networks of every size: a step is enough
    zoo = make(**settings).collect(2, rng=generator(0), work=work_folder())
    zoo.save(tmp_path / "zoo")
    loaded = Zoo.load(tmp_path / "zoo")
    assert loaded.hash == zoo.hash
    task = make(**settings)
    for row in range(2):
        scores = task.scorer(loaded, "val")(loaded.vectors[row : row + 1]).scores
        assert scores.item() == zoo.scores[row]


@pytest.mark.parametrize(
    ("name", "layers", "track"),
    [
        ("fake", "all", "seeds"),
        ("fake", "last-norms:2", "seeds"),
        ("fake", "last-norms:2", "trajectory"),
        ("fake-boxes", "head", "trajectory"),
        ("fake-masks", "head", "trajectory"),
    ],
)
def test_a_killed_collection_goes_on_without_repeating_checkpoints(
    name, layers, track, monkeypatch, tmp_path
):
    settings = {"name": name, "layers": layers, "track": track, "epochs": 2}
    whole = make(**settings).collect(6, rng=generator(0), work=tmp_path / "whole")
    kept, keep = [], rows.Rows.keep

    def keep_then_die(self, vectors, seconds, state):
        keep(self, vectors, seconds, state)
        kept.append(self.done)
        if self.done == 4 and kept.count(4) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(rows.Rows, "keep", keep_then_die)
    with pytest.raises(KeyboardInterrupt):
        make(**settings).collect(6, rng=generator(0), work=tmp_path / "killed")
    resumed = make(**settings).collect(6, rng=generator(0), work=tmp_path / "killed")
    assert kept == [1, 2, 3, 4, 5, 6]
    assert torch.equal(resumed.vectors, whole.vectors)
    assert resumed.hash == whole.hash


def test_killed_base_training_goes_on_from_its_last_epoch(monkeypatch, tmp_path):
    settings = {"arch": "convnet3", "epochs": 4, "augment": "crop-flip"}
    whole = make(**settings).collect(2, rng=generator(0), work=work_folder())
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "killed"))
    task, scored = make(**settings), []

    def die_in_the_third_epoch(model):
        scored.append(1)
        if len(scored) == 4:
            raise KeyboardInterrupt
        return 0.5

    monkeypatch.setattr(task, "score", die_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        task.collect(2, rng=generator(0), work=work_folder())
    epochs = []
    run = steps.Training.run

    def counted(self, start, end):
        epochs.append(start // self.per_epoch)
        run(self, start, end)

    monkeypatch.setattr(steps.Training, "run", counted)
    resumed = make(**settings).collect(2, rng=generator(0), work=work_folder())
    assert 0 not in epochs[:-2]
    assert torch.equal(resumed.vectors, whole.vectors)


def test_a_base_is_trained_once_for_all_layers_and_tracks(monkeypatch):
    make(arch="convnet3").collect(2, rng=generator(0), work=work_folder())
    monkeypatch.setattr(collection, "train_base", None)  # calling it would fail
    make(arch="convnet3", layers="linear", track="seeds").collect(
        2, rng=generator(0), work=work_folder()
    )


@pytest.mark.parametrize(
    ("name", "arch"),
    [("fake", "convnet3"), ("fake", "vit_tiny"), ("fake-boxes", "fcos_small")],
)
def test_a_blank_network_draws_nothing_and_becomes_what_it_is_given(name, arch):
    problem = make(name, arch=arch).problem
    before = torch.get_rng_state()
    blank = problem.blank()
    assert torch.equal(torch.get_rng_state(), before)
    other = problem.fresh(None, generator(0))
    blank.load_state_dict(other.state_dict())
    for own, given in (
        (blank.named_parameters(), other.named_parameters()),
        (blank.named_buffers(), other.named_buffers()),  # those in no state too
    ):
        assert all(
            n == m and torch.equal(one, two) for (n, one), (m, two) in zip(own, given, strict=True)
        )


def test_in_a_trajectory_only_the_chosen_layers_move():
    task = make(arch="convnet3")
    zoo = task.collect(5, rng=generator(0), work=work_folder())
    base, _ = task.collection.base(generator(0))
    state = base.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in zoo.base.items())
    assert set(zoo.base) | set(zoo.layout.names) == set(state)
    assert (zoo.vectors.diff(dim=0).abs().sum(1) > 0).all()


def test_seeds_are_independent_of_each_other_and_of_how_many_there_are():
    settings = {"arch": "convnet3", "layers": "all", "track": "seeds"}
    three = make(**settings).collect(3, rng=generator(0), work=work_folder())
    two = make(**settings).collect(2, rng=generator(0), work=work_folder())
    assert torch.equal(three.vectors[:2], two.vectors)
    assert torch.cdist(three.vectors, three.vectors).fill_diagonal_(9).min() > 0.1


def test_finetune_moves_every_vector_a_little_and_differently():
    task = make(arch="convnet3")
    zoo = task.collect(2, rng=generator(0), work=work_folder())
    start = zoo.vectors[:1].expand(3, -1)
    moved = task.finetune(zoo, start, steps=2, rng=generator(1))
    assert moved.shape == start.shape
    distance = (moved - start).norm(dim=1)
    assert (distance > 0).all()
    assert (distance < start[0].norm()).all()
    assert not torch.equal(moved[0], moved[1])


def test_the_seed_decides_the_zoo():
    settings = {"arch": "convnet3"}
    first = make(**settings).collect(2, rng=generator(0), work=work_folder())
    assert make(**settings).collect(2, rng=generator(1), work=work_folder()).hash != first.hash


def test_a_zoo_of_another_architecture_is_refused():
    zoo = make(arch="mlp3", layers="all").collect(1, rng=generator(0), work=work_folder())
    with pytest.raises(BadRequest, match="the zoo does not fit convnet3"):
        make(arch="convnet3").scorer(zoo, "val")(zoo.vectors)


@pytest.mark.parametrize("field", ["epochs", "batch_size", "lr", "every", "val_size", "subset_lr"])
def test_numbers_must_be_positive(field):
    with pytest.raises(BadRequest, match=f"{field} is -1"):
        make(**{field: -1})


@pytest.mark.parametrize("field", ["dataset", "arch", "track", "augment", "optimizer", "precision"])
def test_names_must_be_known(field):
    with pytest.raises(BadRequest, match="unknown"):
        make(**{field: "nonsense"})


def test_settings_are_fields_with_documentation():
    text = "".join(cls.__doc__ or "" for cls in Classification.__mro__)
    for name in Classification.setting_names():
        assert name in text


def test_pretrained_weights_start_the_base_and_keep_the_released_architecture(tmp_path):
    from safetensors.torch import save_file

    from tests.networks import Shape, build

    path = tmp_path / "weights.safetensors"
    source = build("resnet18", Shape(1, 32, 4, released=True))
    save_file(source.state_dict(), path)
    task = make(arch="resnet18", pretrained=str(path), image_size=32, lr=1e-9, layers="linear")
    assert task.shape.size == 32
    zoo = task.collect(1, rng=generator(0), work=work_folder())
    assert torch.allclose(zoo.base["conv1.weight"], source.conv1.weight, atol=1e-5)
    assert task.identity()["pretrained"] != str(path)  # the file's content, not where it lies
    assert make(arch="resnet18", pretrained=str(path)).shape.size == 224
