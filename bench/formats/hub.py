"""Checkpoints as Hugging Face's libraries write them: one a folder, in one file or in shards that an index lists."""

import json
from pathlib import Path

from bench.errors import BadRequest
from bench.formats.checkpoint import Checkpoint, merged, step_of, walk
from bench.system import reading

LIMIT = 100_000_000  # bytes of an index
# In the order of preference, where a folder has the same weights in several forms.
NAMES = (
    "model.safetensors", "diffusion_pytorch_model.safetensors", "open_clip_model.safetensors",
    "pytorch_model.bin", "diffusion_pytorch_model.bin",
)  # fmt: skip
INDEX = ".index.json"


def find(root: Path) -> list[Checkpoint]:
    """Return the checkpoints in and below a folder, one a folder."""
    found = ((folder, _weights(folder, names)) for folder, names in walk(root))
    return [Checkpoint(files, *step_of(files[0], root)) for _, files in found if files]


def has_checkpoint(folder: Path, names: list[str]) -> bool:
    """Return whether a folder is a checkpoint of this form."""
    listed = any(name.endswith(INDEX) for name in names)
    return listed or ("config.json" in names and bool(_weights(folder, names)))


def _weights(folder: Path, names: list[str]) -> tuple[Path, ...]:
    """Return the files of a folder's weights; none where it has none."""
    for name in NAMES:
        if f"{name}{INDEX}" in names:
            return _listed(folder / f"{name}{INDEX}")
        if name in names:
            return (folder / name,)
        stem, dot, suffix = name.rpartition(".")
        shards = [one for one in names if one.startswith(f"{stem}-") and one.endswith(dot + suffix)]
        if shards:
            return merged(folder / one for one in shards)[0]
    return ()


def _listed(index: Path) -> tuple[Path, ...]:
    """Return the shards that an index lists.

    Raises:
        BadRequest: it lists none, or others than files beside it that are there.
    """
    try:
        names = set(
            json.loads(reading.content(index, LIMIT, "index of shards"))["weight_map"].values()
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        names = set()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise BadRequest(
            f"{index} lists no shards: expected 'weight_map' with names of files beside it"
        )
    missing = [name for name in sorted(names) if not (index.parent / name).is_file()]
    if missing:
        raise BadRequest(f"{index.parent / missing[0]} is missing, {index.name} lists it")
    return tuple(index.parent / name for name in sorted(names))
