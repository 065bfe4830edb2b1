"""Scoring many candidates of a segmentation network at once against one after another."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import fcn_resnet50

from bench.contract.zoo import Layout
from bench.system.randomness import generator, scoped
from tasks.data.images import Images
from tasks.fast.confusion import confusion, mean_iou
from tasks.fast.dense import DenseScorer, random_pixels
from tests.benchmarks.networks import CLEAR, around
from tests.networks import Shape, build
from tests.standins import stir_statistics

CLASSES, BATCH = 21, 2  # BATCH of the plain loop


def test_evaluate_segmentation(versus, short):
    """Candidates that differ in the last layer, against loading each one and running torchvision's whole FCN.

    On an image of 520 x 520 the network takes 285 GFLOP, of which the last layer has 0.09. By operations alone 100
    candidates can gain 97; what upsampling 5.7 million logits and comparing them costs the plain path comes on top.
    """
    count, side = (20, 128) if short else (100, 264)
    data = patches(8, side)
    with scoped(generator(0, "network")):
        model = build("fcn_resnet50", Shape(3, 520, CLASSES))
        stir_statistics(model)
    fit_last(model.classifier[4], features(model, data), data.labels)
    alone = fcn_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False)
    alone.load_state_dict(model.state_dict())
    alone.eval()
    names = ("classifier.4.weight", "classifier.4.bias")
    layout = Layout.of({name: model.get_parameter(name) for name in names})
    vectors = around(model, layout, count)
    pixels = random_pixels(data.labels, 500, "val")

    @torch.inference_mode()
    def plain() -> Tensor:
        alone.load_state_dict(layout.unflatten(vectors[0]), strict=False)
        batches = data.inputs(data.examples).split(BATCH)
        return torch.cat([alone(batch)["out"] for batch in batches])

    def agree(scored, logits):
        matrix = confusion(logits.argmax(1).flatten()[None], data.labels.flatten(), CLASSES)
        assert abs(float(mean_iou(matrix) - mean_iou(scored.matrices)[0])) < 1e-4
        some = logits[pixels.image, :, pixels.row, pixels.column]
        top = some.topk(2, dim=1).values
        clear = top[:, 0] - top[:, 1] > CLEAR
        assert clear.float().mean() > 0.9
        assert torch.equal(scored.wrong[0, clear], (some.argmax(1) != pixels.label)[clear])

    versus(
        lambda: DenseScorer(model, layout, data, pixels, CLASSES)(vectors),
        plain,
        agree,
        scale=count,
        rounds=5 if short else 3,
    )


def patches(count: int, side: int) -> Images:
    """Images of a few rectangles, each of the colour of its class, under noise."""
    rng = generator(0, "patches")
    colours = torch.randint(256, (CLASSES, 3), generator=rng)
    labels = torch.zeros(count, side, side, dtype=torch.uint8)
    for mask in labels:
        for _ in range(6):
            top, left = torch.randint(side, (2,), generator=rng).tolist()
            tall, wide = torch.randint(side // 8, side // 2, (2,), generator=rng).tolist()
            mask[top : top + tall, left : left + wide] = torch.randint(CLASSES, (), generator=rng)
    noise = torch.randint(-30, 31, (count, 3, side, side), generator=rng)
    pixels = (colours[labels.long()].permute(0, 3, 1, 2) + noise).clamp(0, 255).to(torch.uint8)
    column = torch.full((3, 1, 1), 0.5)
    return Images(pixels, labels, column, column / 2, side, "cpu")


@torch.inference_mode()
def features(model: nn.Module, data: Images) -> Tensor:
    """What the last layer works on."""
    found: list[Tensor] = []
    hook = model.classifier[4].register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    for batch in data.inputs(data.examples).split(BATCH):
        model(batch)
    hook.remove()
    return torch.cat(found)


@torch.no_grad()
def fit_last(last: nn.Conv2d, features: Tensor, labels: Tensor) -> None:
    """Fit it by least squares: as in a trained network, predictions are patches with doubt at their borders."""
    stride = labels.shape[-1] // features.shape[-1]
    targets = F.one_hot(labels[:, stride // 2 :: stride, stride // 2 :: stride].flatten().long())
    rows = features.permute(0, 2, 3, 1).flatten(0, 2).double()
    rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
    products = rows.T @ rows
    products += 1e-3 * products.diagonal().mean() * torch.eye(len(products))
    solved = torch.linalg.solve(products, rows.T @ targets.double())
    last.weight[: solved.shape[1]] = solved[:-1].T[:, :, None, None].float()
    last.bias[: solved.shape[1]] = solved[-1].float()
