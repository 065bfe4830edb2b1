import dataclasses

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from bench.contract.zoo import Layout
from tasks.fast import scoring
from tasks.fast.budget import Budget, of_candidates
from tasks.fast.dependence import split
from tasks.networks.layers import select
from tests.networks import Shape, build
from tests.standins import images, stir_statistics

CASES = [
    ("mlp3", "all"),
    ("convnet3", "all"),
    ("convnet3", "last-norms:2"),
    ("resnet18", "last-norms:2"),
    ("resnet18", "shortcut"),
    ("resnet18", "conv:first"),
    ("resnet18", "linear"),
    ("resnet18", "layer4.1.conv2.weight"),
    ("resnet50", "layer4.2.conv3.weight"),
    ("resnet50", "norms:10-14"),
    ("vit_tiny", "last-norms:2"),
    ("vit_tiny", "pos_embed"),
    ("convnext_tiny", "last-norms:2"),
]


def candidates(arch: str, layers: str, count: int = 3):
    """A model whose norms do something, its layout, and vectors around its own weights."""
    torch.manual_seed(0)
    model = build(arch, Shape(3, 32, 4))
    stir_statistics(model)
    layout = Layout.of({name: model.get_parameter(name) for name in select(model, layers)})
    vector = layout.flatten({name: model.get_parameter(name) for name in layout.names}).detach()
    noise = torch.randn(count, layout.dim, generator=torch.Generator().manual_seed(1))
    return model, layout, vector + 0.1 * noise


def one_at_a_time(model, layout, vectors, data):
    """The plain loop: load a candidate, run the whole network."""
    inputs = data.inputs(data.examples)
    with torch.inference_mode():
        return torch.stack(
            [functional_call(model, layout.unflatten(vector), (inputs,)) for vector in vectors]
        )


@pytest.mark.parametrize(("arch", "layers"), CASES)
def test_candidates_scored_together_equal_the_plain_loop(arch, layers):
    model, layout, vectors = candidates(arch, layers, count=2)
    data = images(count=8)
    logits = one_at_a_time(model, layout, vectors, data)
    top = logits.topk(2, dim=-1).values
    clear = top[..., 0] - top[..., 1] > 1e-4
    batches = dataclasses.replace(
        of_candidates(torch.device("cpu")), images=5
    )  # the last is smaller
    scored = scoring.ClassifierScorer(model, layout, data, batches)(vectors)
    wrong = logits.argmax(-1) != data.labels
    assert torch.equal(scored.wrong[clear], wrong[clear])
    assert clear.float().mean() > 0.9
    loss = torch.stack([F.cross_entropy(row, data.labels) for row in logits])
    assert torch.allclose(scored.loss, loss.double(), rtol=1e-4)


def test_what_is_shared_does_not_depend_on_the_candidates():
    model, layout, _ = candidates("resnet18", "last-norms:2")
    inputs = torch.randn(4, 3, 32, 32)
    parts = split(model, layout.names, inputs)
    used = {str(node.target) for node in parts.generated.graph.nodes if node.op == "call_module"}
    assert (
        used
        == {
            *(
                f"layer4.1.{name}"
                for name in ("bn1", "drop_block", "act1", "aa", "conv2", "bn2", "act2")
            ),
            *("global_pool.pool", "global_pool.flatten", "fc"),
        }
        & used
    )
    assert "layer4.1.conv1" not in used
    assert "layer4.1.bn1" in used


@pytest.mark.parametrize(
    ("layers", "first"),
    [
        ("linear", {"fc.weight", "fc.bias"}),
        ("last-norms:2", {"layer4.1.bn1.weight", "layer4.1.bn1.bias"}),
    ],
)
def test_which_parameters_work_on_shared_tensors_alone(layers, first):
    model, layout, _ = candidates("resnet18", layers)
    assert split(model, layout.names, torch.randn(2, 3, 32, 32)).first == first


def test_only_kernels_that_are_a_plain_product_run_together_on_a_cpu():
    def alone(arch, layers):
        model, layout, _ = candidates(arch, layers)
        return scoring.Candidates(model, layout, images(count=2)).alone

    assert not alone("resnet50", "layer4.2.conv3.weight")  # one pixel, on shared tensors
    assert alone("resnet50", "layer4.2.conv2.weight,layer4.2.conv3.weight")
    assert alone("resnet18", "layer4.1.conv2.weight")
    assert not alone("resnet18", "last-norms:2")


def test_overwriting_operations_do_not_spoil_shared_tensors():
    """A candidate's in-place sum onto a shared tensor would change the next candidate's result."""
    model, layout, vectors = candidates("resnet18", "shortcut", count=2)
    parts = split(model, layout.names, torch.randn(2, 3, 32, 32))
    shared = parts.shared(torch.randn(2, 3, 32, 32))
    before = [tensor.clone() for tensor in shared]
    with torch.inference_mode():
        functional_call(parts.generated, layout.unflatten(vectors[0]), shared)
    assert all(torch.equal(a, b) for a, b in zip(before, shared, strict=True))


def test_beyond_the_memory_budget_features_are_computed_again_with_the_same_result():
    model, layout, vectors = candidates("convnet3", "last-norms:2")
    data = images(count=48)
    kept = scoring.ClassifierScorer(model, layout, data)
    again = scoring.ClassifierScorer(model, layout, data, Budget(keep=1, work=1, images=16))
    first, second = kept(vectors), again(vectors)
    assert again.candidates._kept == []
    assert torch.equal(first.wrong, second.wrong)
    assert torch.allclose(first.loss, second.loss)


def test_a_candidate_that_overflows_is_wrong_with_infinite_loss_and_alone():
    model, layout, vectors = candidates("mlp3", "all")
    vectors[1] = torch.inf
    scored = scoring.ClassifierScorer(model, layout, images())(vectors)
    assert scored.loss.isfinite().tolist() == [True, False, True]
