import dataclasses

import pytest
import torch

from bench.contract.zoo import Layout
from bench.system.randomness import generator
from tasks.data.images import Images
from tasks.fast.frozen import Frozen
from tasks.networks.layers import select
from tasks.training.batches import Batches
from tasks.training.recipe import Recipe
from tests.networks import Shape, build

PLAIN = Recipe(batch_size=8)


def images(count=20):
    rng = generator(0)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=rng, dtype=torch.uint8)
    middle = torch.full((3, 1, 1), 0.5)
    return Images(pixels, torch.arange(count) % 4, middle, middle, 32, "cpu")


def made(arch="resnet18", layers="last-norms:2", recipe=PLAIN, data=None, **budget):
    """A frozen network on 20 images, and a list of what its first layer saw, a number an image."""
    torch.manual_seed(0)
    model = build(arch, Shape(3, 32, 4)).eval()
    layout = Layout.of({name: model.get_parameter(name) for name in select(model, layers)})
    one = Frozen(model, layout, data or images(), recipe, recipe.precision, **budget)
    seen = []
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda _, inputs, __: seen.extend(inputs[0].flatten(1).sum(1)))
    return one, seen


def losses(one, epochs=3, seed=1):
    batches = Batches(one.source, PLAIN, generator(seed))
    return torch.stack(
        [one.loss(batches)(step) for step in range(epochs * batches.order.per_epoch)]
    )


@pytest.mark.parametrize(
    ("arch", "layers", "precision"),
    [
        ("resnet18", "last-norms:2", "float32"),
        ("vit_tiny", "norm.*", "float32"),
        ("convnet3", "last-norms:1", "bfloat16"),
    ],
)
def test_losses_are_those_of_features_that_are_never_kept(arch, layers, precision):
    recipe = dataclasses.replace(PLAIN, precision=precision)
    kept, _ = made(arch, layers, recipe)
    assert kept.keeps
    computed, _ = made(arch, layers, recipe, keep=0)
    assert not computed.keeps
    tolerance = 1e-5 if precision == "float32" else 2e-2
    torch.testing.assert_close(losses(kept), losses(computed), rtol=tolerance, atol=tolerance)


def test_the_frozen_part_sees_no_image_again_that_it_knows():
    one, seen = made()
    losses(one, epochs=6)
    assert {float(total) for total in seen} == {
        float(total) for total in one.source.inputs(one.source.examples).flatten(1).sum(1)
    }
    count = len(seen)
    assert count < 4 * 16  # images that were left over in one epoch come in another
    losses(one, seed=2)  # another run from the same base
    assert len(seen) == count


def test_images_that_vary_are_computed_every_time():
    one, seen = made(recipe=dataclasses.replace(PLAIN, augment="crop-flip"))
    assert not one.keeps
    seen.clear()
    losses(one)
    assert len(seen) == 3 * 16


def test_where_nothing_is_frozen_nothing_is_kept():
    one, _ = made("convnet3", "all")
    assert not one.keeps
