"""The named tasks: one for every registered data set, and others. Imports nothing heavy: ``bench list`` reads it."""

from bench.contract import registry
from bench.contract.declarations import DataSet, Variant

CLASSES = {  # of the task that is named after a data set, by the data set's form
    "labels": "tasks.classification:Classification",
    "boxes": "tasks.detection:Detection",
    "masks": "tasks.segmentation:Segmentation",
}
_GENERATION = "tasks.image_generation:ImageGeneration"


def _named_after(data_set: DataSet) -> Variant:
    settings = {"dataset": data_set.name, **data_set.settings}
    target = CLASSES[data_set.form]
    counts = (data_set.k, data_set.samples, data_set.held_out)
    return Variant(target, data_set.about, settings, *counts)


OTHERS: dict[str, Variant] = {
    "cifar10-ddpm": Variant(
        _GENERATION,
        "CIFAR-10 drawn by a DDPM UNet, scored by FID",
        {"dataset": "cifar10", "augment": "flip", "epochs": 10, "passes": 10},
    ),
    "digits-ddpm": Variant(
        _GENERATION,
        "digits drawn by a small DDPM UNet, scored by the Fréchet distance in a classifier's features; embedded",
        {
            "dataset": "digits",
            "arch": "ddpm8",
            "layers": "up_blocks.1.*norm*",
            "epochs": 20,
            "passes": 29,
            "subset_lr": 2e-3,
            "fid_images": 256,
            "sampler": "dpm-solver++",
            "steps": 12,
            "feature_network": "convnet3",
        },
        k=40,
    ),
}


def __getattr__(name: str) -> dict[str, Variant]:
    """Return ``TASKS``, made anew each time: which data sets are registered can change within a process."""
    if name != "TASKS":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    named = {one.name: one for one in registry.data_sets().values() if one.form in CLASSES}
    return {**{name: _named_after(one) for name, one in named.items()}, **OTHERS}
