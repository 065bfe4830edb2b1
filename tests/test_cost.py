"""Counted work and sizes of networks, against counts by hand and published ones."""

import pytest
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, FCOS_ResNet50_FPN_Weights

from bench.contract import registry
from bench.contract.cost import OTHER, network_cost
from bench.contract.declarations import Shape

SIDES = {"labels": 32, "boxes": 80, "masks": 80, "noise": 8}


def test_an_mlp_counted_by_hand():
    cost = network_cost("mlp3", Shape(3, 32, 10))
    assert cost.gflop == pytest.approx(2e-9 * (3072 * 50 + 50 * 25 + 25 * 10))
    assert cost.parameters == 155_135  # the paper's Table 3


def test_a_convolution_counted_by_hand():
    by_layer = [3 * 9 * 32 * 32**2, 32 * 9 * 32 * 16**2, 32 * 9 * 32 * 8**2, 32 * 4**2 * 10]
    assert network_cost("convnet3", Shape(3, 32, 10)).gflop == pytest.approx(2e-9 * sum(by_layer))


@pytest.mark.parametrize(
    ("arch", "size", "multiplications", "parameters"),
    [  # millions of each, as the architectures' authors or torchvision publish them
        ("resnet18", 224, 1814, 11.7),
        ("vit_base", 224, 17580, 86.6),
        ("convnext_tiny", 224, 4456, 28.6),
        ("ddpm32", 32, 6060, 35.7),
    ],
)
def test_published_counts(arch, size, multiplications, parameters):
    cost = network_cost(arch, Shape(3, size, 1000))
    assert cost.gflop == pytest.approx(2e-3 * multiplications, rel=0.03)
    assert cost.parameters == pytest.approx(1e6 * parameters, rel=0.01)


@pytest.mark.parametrize(
    ("arch", "weights"),
    [
        ("fasterrcnn_resnet50_fpn", FasterRCNN_ResNet50_FPN_Weights.COCO_V1),
        ("fcos_resnet50_fpn", FCOS_ResNet50_FPN_Weights.COCO_V1),
    ],
)
def test_detectors_as_torchvision_counts_them(arch, weights):
    cost = network_cost(arch, Shape(3, 800, 91))
    assert cost.gflop == pytest.approx(2 * weights.meta["_ops"], rel=0.05)


@pytest.mark.parametrize("arch", registry.architectures())
def test_every_architecture_can_be_counted(arch):
    side = SIDES[registry.architectures()[arch].form]
    cost = network_cost(arch, Shape(3, side, 10))
    assert cost != OTHER
    assert 0 < cost.gflop < 100
    assert 1e3 < cost.parameters < 1e8


@pytest.mark.parametrize(("arch", "size"), [("of_nobody", 32), ("ddpm32", 9)])
def test_what_cannot_be_counted_gets_a_rule_of_thumb(arch, size):
    assert network_cost(arch, Shape(3, size, 10)) == OTHER
