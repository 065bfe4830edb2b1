"""Scoring many candidates at once against one after another."""

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from tasks.scoring import Scorer
from tests.benchmarks.networks import around, check_wrong, images, network

BATCH = 250  # of the plain loops


def test_evaluate_resnet18_last_norms(versus, short):
    """Against loading each candidate and running the whole network, on the same tensors."""
    count, size, sample = (10, 250, 1) if short else (100, 2000, 2)
    data = images(size, classes=100)
    parts = data.inputs(data.pixels).split(BATCH)
    _compare(versus, short, "resnet18", "last-norms:2", 100, data, lambda: parts, count, sample)


def test_evaluate_against_dataloader(versus, short):
    """Against a torchvision data set with transforms behind a DataLoader for each whole network."""
    count, size, sample = (5, 1000, 1) if short else (50, 10_000, 1)
    data = images(size)
    files = _cifar10(data)

    def batches():
        return (inputs for inputs, _ in DataLoader(files, batch_size=BATCH))

    _compare(versus, short, "convnet3", "all", 10, data, batches, count, sample)


def _compare(versus, short, arch, layers, classes, data, batches, count, sample):
    """All candidates at once against the first few, each loaded and run on batches that are made anew for it."""
    model, layout = network(arch, layers, classes)
    alone, _ = network(arch, layers, classes)
    vectors = around(model, layout, count)

    @torch.inference_mode()
    def plain():
        rows = []
        for vector in vectors[:sample]:
            alone.load_state_dict(layout.unflatten(vector), strict=False)
            rows.append(torch.cat([alone(inputs) for inputs in batches()]))
        return torch.stack(rows)

    def agree(scored, logits):
        check_wrong(scored.wrong[:sample], logits, data.labels)

    versus(
        lambda: Scorer(model, layout, data)(vectors),
        plain,
        agree,
        scale=count / sample,
        rounds=5 if short else 2,
    )


def _cifar10(data):
    """torchvision's CIFAR-10 with these images instead of a download."""
    files = datasets.CIFAR10.__new__(datasets.CIFAR10)
    files.data = data.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    files.targets = data.labels.tolist()
    mean, std = data.mean.flatten().tolist(), data.std.flatten().tolist()
    files.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    files.target_transform = None
    return files
