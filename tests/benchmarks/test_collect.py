"""Collecting checkpoints against the scripts that people write."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F

from bench.system.randomness import derive, generator
from tasks.fast import stacking
from tasks.fast.frozen import Frozen
from tasks.fast.scoring import ClassifierScorer
from tasks.training.batches import Batches
from tasks.training.part import free, put, take
from tasks.training.recipe import Recipe
from tasks.training.rows import Rows
from tasks.training.steps import Training, supervise
from tasks.training.tracks import seeds, trajectory
from tests.benchmarks.networks import images, network

LR = 0.01


def test_collect_trajectory_resnet18(versus, short, tmp_path):
    """Checkpoints with their scores, against stepping and validating the whole network for each of them.

    Ours trains in bfloat16, as the recipe of the architecture says; the script in float32, as scripts do. Where the
    processor has no instructions for bfloat16, the short form does without: it would take two minutes.
    """
    count, size, sample = (4, 100, 1) if short else (20, 1000, 1)
    plainly = short and torch.backends.cpu.get_cpu_capability() != "AVX512"
    precision = "float32" if plainly else "bfloat16"
    recipe = Recipe(augment="crop-flip", batch_size=32 if short else 128, precision=precision)
    train, val = images(2560, classes=100), images(size, classes=100)
    inputs = val.inputs(val.examples)

    def ours():
        model, layout = network("resnet18", "last-norms:2", classes=100)
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            rows = Rows(Path(folder), count, layout.dim)
            data = Batches(train, recipe, generator(0, "data"))
            own = free(model, layout)
            frozen = Frozen(model, layout, train, recipe, recipe.precision)
            training = Training(frozen.loss(data), own, recipe, data.order.per_epoch, lr=LR)
            trajectory(training, own, layout, rows, every=1)
            return rows.vectors.clone(), ClassifierScorer(model, layout, val)(rows.vectors).wrong

    def plain():
        model, layout = network("resnet18", "last-norms:2", classes=100)
        own = [model.get_parameter(name) for name in layout.names]
        optimizer = recipe.make_optimizer(own)
        optimizer.param_groups[0]["lr"] = LR
        data = Batches(train, recipe, generator(0, "data"))
        for step in range(sample):
            batch, labels = data(step)
            model.zero_grad()
            F.cross_entropy(model(batch), labels).backward()
            optimizer.step()
            torch.save(model.state_dict(), tmp_path / "checkpoint.pth")
            with torch.inference_mode():
                logits = torch.cat([model(part) for part in inputs.split(250)])
        return torch.cat([tensor.detach().flatten() for tensor in own]), logits

    def agree(collected, last):
        (vectors, wrong), (vector, logits) = collected, last
        assert torch.allclose(vectors[sample - 1], vector, atol=1e-3)  # within bfloat16's rounding
        agreement = (wrong[sample - 1] == (logits.argmax(-1) != val.labels)).float().mean()
        assert agreement > 0.97

    versus(ours, plain, agree, scale=count / sample, rounds=5 if short else 2)


def test_collect_part_seeds(versus, short, tmp_path):
    """Independent runs of a generated part on images without augmentation, against stepping the whole network."""
    count, size, sample = (5, 64, 1) if short else (20, 256, 1)
    recipe = Recipe(epochs=2, batch_size=32 if short else 128)
    train = images(size, classes=100)
    keys = [generator(0, "seed", seed) for seed in range(count)]

    def trained(loss, data, own):
        training = Training(loss(data), own, recipe, data.order.per_epoch, lr=LR)
        training.run(0, training.steps)
        return take(own)

    def ours():
        model, layout = network("resnet18", "last-norms:2", classes=100)
        own = free(model, layout)
        start, frozen = take(own), Frozen(model, layout, train, recipe, recipe.precision)
        rows = []
        for key in keys:
            put(start, layout, own)
            rows.append(trained(frozen.loss, Batches(train, recipe, key), own))
        return torch.stack(rows)

    def plain():
        rows = []
        for key in keys[:sample]:
            model, layout = network("resnet18", "last-norms:2", classes=100)
            own = free(model, layout)
            rows.append(trained(partial(supervise, model), Batches(train, recipe, key), own))
        return torch.stack(rows)

    def agree(together, alone):
        assert torch.allclose(together[:sample], alone, atol=1e-4)
        assert not torch.equal(together[0], together[1])

    versus(ours, plain, agree, scale=count / sample, rounds=5 if short else 3)


def test_collect_mlp3_seeds(versus, short, tmp_path):
    """Independent runs together against one after another: the same steps on the same batches."""
    count, sample, steps = (70, 10, 40) if short else (200, 20, 80)
    recipe = Recipe(epochs=1, batch_size=128)
    train = images(128 * steps, channels=1, side=28)
    _, layout = network("mlp3", "all", channels=1, side=28)
    key = generator(0, "seeds")

    def fresh(rng):
        model, _ = network("mlp3", "all", channels=1, side=28)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01 * torch.randn(parameter.shape, generator=rng)
        return model

    def stack(keys):
        starts = [fresh(derive(key, "start")) for key in keys]
        return stacking.train_whole(starts, layout, train, recipe, keys)

    def ours():
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            rows = Rows(Path(folder), count, layout.dim)
            together = stacking.size(layout, train, recipe)
            seeds(stack, rows, key, together=together, device="cpu")
            return rows.vectors.clone()

    def plain():
        rows = []
        for seed in range(sample):
            own = derive(key, seed)
            model = fresh(derive(own, "start")).train()
            data, optimizer = (
                Batches(train, recipe, own),
                recipe.make_optimizer([*model.parameters()]),
            )
            for step in range(steps):
                inputs, labels = data(step)
                optimizer.param_groups[0]["lr"] = recipe.rate(step, steps)
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
            tensors = dict(model.named_parameters())
            rows.append(layout.flatten({name: tensors[name].detach() for name in layout.names}))
        return torch.stack(rows)

    def agree(together, alone):
        assert torch.allclose(together[:sample], alone, atol=1e-3)

    versus(ours, plain, agree, scale=count / sample, rounds=5 if short else 3)
