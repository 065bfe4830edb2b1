import dataclasses

import pytest
import torch

from bench import plugins
from bench.contract import registry
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.judge.align import (
    Comparer,
    align,
    align_zoo,
    found_groups,
    groups,
    rows,
)
from bench.runs.calibrate import permuted, rescaled
from bench.system.randomness import generator
from tests.networks import Shape, build, shuffled

ARCHITECTURES = {
    "mlp3": Shape(3, 8, 4),
    "mlp3 on grey": Shape(1, 8, 4),
    "mlp_32_32": Shape(3, 8, 4),
    "convnet3": Shape(3, 16, 4),
    "modelzoo_small": Shape(3, 20, 4),
    "resnet18": Shape(3, 16, 4),
    "resnet20": Shape(3, 16, 4),
    "resnet50": Shape(3, 16, 4),
}
CLAIMING = [one.name for one in registry.architectures().values() if one.alignable]


def network(name, seed=0):
    """A network whose normalization layers do something, with neutral statistics as in a zoo of whole networks."""
    torch.manual_seed(seed)
    model = build(name.partition(" ")[0], ARCHITECTURES[name])
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def zoo_of(*models):
    layout = Layout.of(dict(models[0].named_parameters()))
    vectors = [layout.flatten(dict(model.named_parameters())).detach() for model in models]
    return Zoo(torch.stack(vectors), layout, dict(models[0].named_buffers()))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_permuted_network_is_the_same_function(name):
    model = network(name)
    zoo = zoo_of(model)
    inputs = torch.randn(3, 3 if "grey" not in name else 1, *(2 * [ARCHITECTURES[name].size]))
    before = model(inputs)
    other = shuffled(zoo)
    assert not torch.equal(other, zoo.vectors[0])
    model.load_state_dict({**zoo.base, **zoo.layout.unflatten(other)})
    torch.testing.assert_close(model(inputs), before, rtol=1e-3, atol=1e-4)


def narrow(name):
    """A zoo of one random vector, in the layout of an architecture; four units in the first layers of a ResNet."""
    with torch.device("meta"):
        tensors = dict(build(name, Shape(3, 32, 5)).named_parameters())
    units = tensors["conv1.weight"].shape[0] if name.startswith("resnet") else 4
    shapes = [
        tuple(
            size // (units // 4) if size >= units and axis < 2 else size
            for axis, size in enumerate(tensor.shape)
        )
        for tensor in tensors.values()
    ]
    layout = Layout(tuple(tensors), tuple(shapes))
    return Zoo(torch.randn(1, layout.dim, generator=generator(0)), layout)


def test_alignment_undoes_random_permutations_of_every_architecture_that_claims_a_rule():
    assert {"mlp3", "convnet3", "resnet18", "resnet20", "resnet50"} < set(CLAIMING)
    for name in CLAIMING:
        zoo = narrow(name)
        orders = torch.stack([shuffled(zoo, seed=seed) for seed in range(4)])
        assert (orders != zoo.vectors).any(1).all(), name
        aligned = align(orders, zoo.vectors[0], zoo.layout, groups(zoo))
        assert torch.equal(aligned, zoo.vectors.expand(4, -1)), name


@pytest.mark.parametrize(("name", "head"), [("resnet50", "fc"), ("resnet20", "linear")])
def test_every_axis_of_a_resnet_but_input_and_classes_belongs_to_one_group(name, head):
    zoo = narrow(name)
    shapes = dict(zip(zoo.layout.names, zoo.layout.shapes, strict=True))
    axes = {(name, axis) for name, shape in shapes.items() for axis in range(min(2, len(shape)))}
    found = [place for places in groups(zoo).values() for place in places]
    assert len(found) == len(set(found))
    assert axes - set(found) == {("conv1.weight", 1), (f"{head}.weight", 0), (f"{head}.bias", 0)}


def test_matching_never_moves_a_network_away():
    zoo = zoo_of(network("mlp3", 0), network("mlp3", 1))
    found = groups(zoo)
    matched = align(zoo.vectors[1:], zoo.vectors[0], zoo.layout, found)[0]
    before = (zoo.vectors[0] - zoo.vectors[1]).norm()
    assert (zoo.vectors[0] - matched).norm() < before
    assert torch.equal(matched.sort().values, zoo.vectors[1].sort().values)


def test_rows_of_a_flattened_feature_map_are_its_channels():
    tensor = torch.arange(12.0).reshape(1, 1, 12)  # 3 channels of 4 values
    assert rows(tensor, 1, 3).tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]]


def test_a_copy_in_disguise_is_found_by_the_compared_weights():
    zoo = zoo_of(network("mlp3", 0), network("mlp3", 1), network("mlp3", 2))
    disguised, compare = shuffled(zoo, row=1)[None], Comparer(zoo)
    assert torch.cdist(disguised, zoo.vectors).min() > 1
    found = compare(disguised, torch.tensor([1]))
    assert torch.cdist(found, compare.originals).min() == pytest.approx(0, abs=1e-4)


def test_a_part_of_a_network_is_not_permuted():
    zoo = zoo_of(network("convnet3"))
    frozen = dataclasses.replace(zoo, base={**zoo.base, "8.weight": torch.ones(1)})
    with pytest.raises(BadRequest, match=r"whole networks only, and '8\.weight' is frozen"):
        align_zoo(frozen)
    assert found_groups(frozen) is None


def test_statistics_of_their_own_are_refused():
    zoo = zoo_of(network("convnet3"))
    base = {**zoo.base, "1.running_mean": torch.arange(32.0)}
    with pytest.raises(BadRequest, match=r"'1\.running_mean' of the base differs between units"):
        groups(dataclasses.replace(zoo, base=base))


def test_other_architectures_are_refused():
    zoo = Zoo(torch.zeros(1, 4), Layout(("blocks.0.attn.qkv.weight",), ((2, 2),)))
    with pytest.raises(BadRequest, match="chains of layers and ResNets only"):
        groups(zoo)
    others = narrow("resnet20").layout
    like_a_resnet = dataclasses.replace(others, names=("other.weight", *others.names[1:]))
    with pytest.raises(BadRequest, match="chains of layers and ResNets only"):
        groups(Zoo(torch.zeros(1, others.dim), like_a_resnet))


def test_an_aligned_zoo_has_the_same_functions():
    zoo = zoo_of(network("mlp3", 0), network("mlp3", 1))
    aligned = align_zoo(zoo)
    assert torch.equal(aligned.vectors[0], zoo.vectors[0])
    model, inputs = network("mlp3", 0), torch.randn(2, 3, 8, 8)
    outputs = []
    for vector in (zoo.vectors[1], aligned.vectors[1]):
        model.load_state_dict({**zoo.base, **zoo.layout.unflatten(vector)})
        outputs.append(model(inputs))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["mlp3", "convnet3"])
def test_permuted_and_rescaled_copies_are_compared_as_what_they_copy(arch, tmp_path):
    settings = {"arch": arch, "layers": "all", "track": "seeds", "epochs": 1}
    task = plugins.load_task("fake", "quick", settings)
    zoo = task.collect(3, rng=torch.Generator().manual_seed(0), work=tmp_path / "work")
    moved = rescaled(zoo, zoo.vectors, torch.Generator().manual_seed(1))
    moved = permuted(zoo, moved, torch.Generator().manual_seed(2))
    score, compare = task.scorer(zoo, "val"), Comparer(zoo)
    assert torch.allclose(score(moved).outputs, score(zoo.vectors).outputs, atol=1e-5)
    assert (moved - zoo.vectors).norm(dim=1).min() > 1
    originals = compare.originals
    assert torch.allclose(compare(moved, torch.arange(3)), originals, atol=1e-5)
    assert torch.cdist(originals, originals).fill_diagonal_(9).min() > 1
