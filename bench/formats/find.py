"""All checkpoints of files and folders, by the format that they are in."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.errors import BadRequest, unknown
from bench.formats import databases, flat, hub, peft, ray
from bench.formats.checkpoint import Checkpoint, merged, walk

FORMATS: dict[str, Callable[[Path], list[Checkpoint]]] = {
    "flat": flat.find,
    "ray": ray.find,
    "lmdb": databases.find,
    "peft": peft.find,
    "hf": hub.find,
}
AUTO = "auto"


def find(files: Iterable[Path], form: str = AUTO) -> list[Checkpoint]:
    """Return the checkpoints of files and folders.

    Args:
        files: files, which are checkpoints or shards of one, and folders.
        form: one of ``FORMATS``; "auto" tells that of each folder by what lies in it.

    Raises:
        BadRequest: an unknown format, nothing at a path, or a folder without checkpoints of this format.
    """
    if form not in (AUTO, *FORMATS):
        raise unknown("format", form, [AUTO, *FORMATS])
    paths = list(files)
    single = [path for path in paths if not path.is_dir()]
    found = [flat.of(group, _shared(single)) for group in merged(single)]
    for folder in (path for path in paths if path.is_dir()):
        chosen = told(folder) if form == AUTO else form
        inside = FORMATS[chosen](folder)
        if not inside:
            raise BadRequest(
                f"no checkpoints to import in {folder}, read as {chosen}: {EXPECTED[chosen]}"
            )
        found += inside
    return found


def _shared(paths: list[Path]) -> Path:
    """Return the folder that all files lie in or below."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


EXPECTED = {
    "flat": "expected .pth or .safetensors state dicts, or another --format",
    "ray": "expected <trial>/checkpoint_000050/checkpoints",
    "lmdb": "expected folders with data.mdb and runs.json",
    "peft": "expected folders with adapter_config.json and adapter_model.safetensors",
    "hf": "expected folders with model.safetensors, pytorch_model.bin or an index of shards",
}


def told(folder: Path) -> str:
    """Return the format that lies in a folder, by the first file in or below it that only one has."""
    for inside, names in walk(folder):
        for form, has in _MARKS.items():
            if has(inside, names):
                return form
    return "flat"


_MARKS: dict[str, Callable[[Path, list[str]], bool]] = {
    "lmdb": lambda _, names: databases.MARK in names,
    "peft": lambda _, names: peft.MARK in names and not {*peft.WEIGHTS}.isdisjoint(names),
    "ray": ray.is_trial,
    "hf": hub.has_checkpoint,
}
