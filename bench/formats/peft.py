"""Adapters as the library PEFT writes them: adapter_config.json beside adapter_model.safetensors, a folder each."""

from pathlib import Path

from bench.errors import BadRequest
from bench.formats.checkpoint import Checkpoint, step_of, walk

MARK = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def find(root: Path) -> list[Checkpoint]:
    """Return the adapters in and below a folder.

    Raises:
        BadRequest: a folder has the configuration of an adapter and no weights.
    """
    return [_adapter(folder, names, root) for folder, names in walk(root) if MARK in names]


def _adapter(folder: Path, names: list[str], root: Path) -> Checkpoint:
    found = [name for name in WEIGHTS if name in names]
    if not found:
        raise BadRequest(f"{folder} has {MARK} and neither {WEIGHTS[0]} nor {WEIGHTS[1]}")
    path = folder / found[0]
    run, epoch = step_of(path, root)
    return Checkpoint((path,), run, epoch)
