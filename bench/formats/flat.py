"""Checkpoints in folders of files, as most programs write them; what their names tell is read."""

import re
from collections.abc import Iterator
from pathlib import Path

from bench.formats.checkpoint import Checkpoint, holds_weights, merged, step_of, walk

# "0012_acc0.9531_seed0020_tag", "mlp_seed7", "vit_epoch=12_val_loss=0.31": number of the save, metrics, seed, epoch.
_SAVE = re.compile(r"(\d+)_acc")
_METRIC = re.compile(
    r"(?<![a-z])((?:(?:test|val|train|best)[-_])?(?:acc|accuracy|loss|score|f1))[-_=]?(\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_SEED = re.compile(r"(?<![a-z])seed[-_=]?(\d+)", re.IGNORECASE)
_JOINED_SEED = re.compile(r"seed(\d+)", re.IGNORECASE)
_EPOCH = re.compile(r"(?<![a-z])(?:epoch|step|iter)s?[-_=]?(\d+)", re.IGNORECASE)
# Of the last and the current state of one training, in one folder, only the last is its checkpoint.
_FINAL, _CURRENT = re.compile(r"model_final\..+"), re.compile(r"model_current\..+")


def find(root: Path) -> list[Checkpoint]:
    """Return the checkpoints of all files in and below a folder."""
    paths = [path for folder, names in walk(root) for path in _inside(folder, names)]
    return [of(files, root) for files in merged(paths)]


def _inside(folder: Path, names: list[str]) -> Iterator[Path]:
    final = any(_FINAL.fullmatch(name) for name in names)
    for name in names:
        if holds_weights(folder / name) and not (final and _CURRENT.fullmatch(name)):
            yield folder / name


def of(files: tuple[Path, ...], root: Path) -> Checkpoint:
    """Return the checkpoint of a file or its shards, with what the names of file and folders below ``root`` tell."""
    name = files[0].name
    run, epoch = step_of(files[0], root)
    metrics = {found[1].lower(): float(found[2]) for found in _METRIC.finditer(name)}
    if seed := _SEED.search(name) or _JOINED_SEED.search(name):
        run = f"{run}/seed{seed[1]}" if run else f"seed{seed[1]}"
        metrics["seed"] = float(seed[1])
    if number := _EPOCH.search(name) or _SAVE.match(name):
        epoch = int(number[1])
    return Checkpoint(files, run, epoch, metrics)
