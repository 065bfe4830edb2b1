import pytest
import torch
from torch import fx, nn

from tasks.fast.folding import fold
from tests.standins import stir_statistics


def block(*layers):
    torch.manual_seed(0)
    module = nn.Sequential(*layers)
    stir_statistics(module)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.eval()


def calls(module):
    return [node.target for node in module.graph.nodes if node.op == "call_module"]


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_network_computes_the_same_with_one_layer_less(bias):
    model = block(nn.Conv2d(3, 5, 3, bias=bias), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 1))
    traced, inputs = fx.symbolic_trace(model), torch.randn(4, 3, 8, 8)
    (folded,) = fold(traced)
    assert calls(traced) == ["folded_0", "2", "3"]
    assert torch.allclose(traced(inputs), model(inputs), atol=1e-5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-0.5)
    assert not torch.allclose(traced(inputs), model(inputs), atol=1e-2)
    folded.refresh()
    assert torch.allclose(traced(inputs), model(inputs), atol=1e-5)


class Branches(nn.Module):
    """A convolution whose output is used twice, one that is called twice, and one without statistics."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.last = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.norm, self.again = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.plain = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x):
        y = self.first(x)
        y = y + self.norm(y)
        y = self.again(self.twice(y)) + self.twice(x)
        return self.plain(self.last(y))


def test_what_cannot_be_folded_stays():
    model = block(Branches())[0]
    traced, inputs = fx.symbolic_trace(model), torch.randn(4, 3, 8, 8)
    before = calls(traced)
    assert fold(traced) == []
    assert calls(traced) == before
    assert torch.equal(traced(inputs), model(inputs))


def test_normalizations_in_a_row_are_folded_once():
    model = block(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.BatchNorm2d(5))
    traced, inputs = fx.symbolic_trace(model), torch.randn(4, 3, 8, 8)
    folds = fold(traced)
    for folded in folds:
        folded.refresh()
    assert torch.allclose(traced(inputs), model(inputs), atol=1e-5)
