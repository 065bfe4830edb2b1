import pytest
import torch

from bench.contract.zoo import Layout
from bench.errors import BenchError
from bench.system.randomness import generator
from tasks.classification import Classification
from tasks.data.images import crop_flip, flip
from tasks.fast import stacking
from tasks.fast.frozen import Frozen
from tasks.networks.layers import select
from tasks.training.batches import Batches, Order
from tasks.training.folding import fold_statistics, neutral_statistics
from tasks.training.recipe import Recipe
from tasks.training.runs import Runs
from tasks.training.steps import Training, supervise
from tests.networks import Shape, build
from tests.standins import image_data, images

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05)


def classification(arch):
    """A task that trains by ``RECIPE`` on the images of ``images``."""
    task = Classification(
        "fake-colour", arch, epochs=2, batch_size=16, lr=0.05, precision="float32"
    )
    task.data = image_data("fake-colour", train=48)
    assert task.recipe == RECIPE
    return task


def layout_of(model, pattern):
    return Layout.of({name: model.get_parameter(name) for name in select(model, pattern)})


@pytest.mark.parametrize("arch", ["mlp3", "convnet3"])
def test_whole_networks_trained_together_equal_those_trained_alone(arch):
    data, keys = images(), [generator(seed) for seed in range(3)]

    def starts():
        torch.manual_seed(0)
        return [build(arch, Shape(3, 32, 4)) for _ in keys]

    layout = layout_of(starts()[0], "all")
    together = stacking.train_whole(starts(), layout, data, RECIPE, keys)
    alone = Runs(classification(arch).problem).whole(starts(), layout, keys)
    assert torch.allclose(together, alone, atol=2e-3)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize(
    ("arch", "pattern"), [("convnet3", "last-norms:2"), ("resnet18", "linear")]
)
def test_parts_trained_together_equal_those_trained_alone(arch, pattern):
    torch.manual_seed(0)
    base = build(arch, Shape(3, 32, 4))
    layout, data = layout_of(base, pattern), images()
    keys = [generator(seed) for seed in range(2)]
    start = torch.stack([layout.flatten(dict(base.named_parameters())).detach()] * 2)
    frozen = Frozen(base, layout, data, RECIPE, "float32")
    train_alone = Runs(classification(arch).problem).part(base, layout)
    alone = train_alone(start, keys, steps=4, lr=0.01)
    stacked = stacking.train_part(frozen, layout, start, RECIPE, keys, steps=4, lr=0.01)
    assert torch.allclose(alone, stacked, atol=1e-4)
    assert not torch.allclose(alone, start, atol=1e-5)


def test_parts_that_end_at_different_steps_equal_those_trained_alone():
    task = classification("convnet3")
    torch.manual_seed(0)
    base = build("convnet3", Shape(3, 32, 4))
    layout = layout_of(base, "last-norms:2")
    start = layout.flatten(dict(base.named_parameters())).detach().expand(3, -1)
    keys = [generator(seed) for seed in range(3)]
    together = task.runs.part(base, layout)
    ended = together(start, keys, steps=[1, 3, 2], lr=0.01)
    for row, steps in enumerate([1, 3, 2]):
        alone = Runs(task.problem).part(base, layout)
        (expected,) = alone(start[:1], keys[row : row + 1], steps=steps, lr=0.01)
        assert torch.allclose(ended[row], expected, atol=1e-5)
        assert not torch.allclose(ended[row], start[0], atol=1e-3)


def test_folded_statistics_give_the_same_function():
    torch.manual_seed(0)
    model = build("convnet3", Shape(3, 32, 4)).train()
    for _ in range(3):
        model(torch.randn(32, 3, 32, 32) * 2 + 1)
    model.eval()
    inputs = torch.randn(8, 3, 32, 32)
    before = model(inputs)
    folded = fold_statistics(model, dict(model.named_parameters()), dict(model.named_buffers()))
    model.load_state_dict(folded, strict=False)
    assert not torch.allclose(model(inputs), before, atol=1e-2)  # statistics are still there
    neutral_statistics(model)
    assert torch.allclose(model(inputs), before, atol=1e-5)


def test_data_of_a_step_depends_on_seed_and_number_alone():
    recipe = Recipe(batch_size=16, augment="crop-flip")
    one, other = (Batches(images(), recipe, generator(1)) for _ in range(2))
    for step in (5, 0, 3):
        one(step)
    assert torch.equal(one(4)[0], other(4)[0])
    assert not torch.equal(one(4)[0], Batches(images(), recipe, generator(2))(4)[0])


def test_an_epoch_sees_every_example_once():
    data = images(count=48)
    order = Order(len(data), 16, generator(0))
    rows = torch.cat([order.rows(step) for step in range(order.per_epoch)])
    assert sorted(rows.tolist()) == list(range(48))


def test_flip_mirrors_about_half_of_the_images_and_changes_nothing_else():
    pixels = torch.randint(256, (200, 3, 4, 6), dtype=torch.uint8)
    changed = flip(pixels, generator(0))
    mirrored = (changed == pixels.flip(3)).flatten(1).all(1)
    assert 70 < mirrored.sum() < 130
    assert torch.equal(changed[~mirrored], pixels[~mirrored])
    assert torch.equal(changed, flip(pixels, generator(0)))


def test_cropped_images_are_shifted_mirrored_or_padded_originals():
    pixels = torch.randint(1, 256, (64, 3, 32, 32), dtype=torch.uint8)
    changed = crop_flip(pixels, generator(0))
    assert changed.shape == pixels.shape
    padded = torch.nn.functional.pad(pixels, (4, 4, 4, 4))
    for original, image in zip(padded, changed, strict=True):
        windows = original.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        assert (windows == image).all((1, 2, 3)).any() or (windows.flip(-1) == image).all(
            (1, 2, 3)
        ).any()


def test_learning_rates_warm_up_and_end_near_zero():
    rates = [Recipe(lr=0.1).rate(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[0] < 0.02
    assert rates[-1] < 0.001


def test_divergence_is_a_clear_error():
    model = build("mlp3", Shape(3, 32, 4))
    data = Batches(images(), Recipe(lr=1e30, batch_size=16), generator(0))
    loss = supervise(model, data)
    training = Training(loss, list(model.parameters()), data.recipe, data.order.per_epoch, lr=1e30)
    with pytest.raises(BenchError, match="diverged"):
        training.run(0, 6)
