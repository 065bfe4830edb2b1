"""Export of a zoo as state dicts that any program reads, and the way back.

A folder holds a file a checkpoint, the whole network each; ``base``, what all share; ``zoo.json``, what else the zoo's
file has; and, if wanted, ``matrix.npy``, the K x D matrix whose columns the layout in ``zoo.json`` names.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.system import reading
from bench.system.data import Json
from bench.system.store import write_text
from bench.system.weights import read_weights

MANIFEST, BASE, MATRIX = "zoo.json", "base", "matrix.npy"
FORMATS = ("safetensors", "pth")
LIMIT = 100_000_000  # bytes of a manifest


class Manifest(BaseModel):
    """What ``zoo.json`` holds: the attributes of ``bench.contract.zoo.Zoo`` that are no tensors, and the files.

    Attributes:
        hash: of the zoo.
        names, shapes: the layout.
        files: the checkpoints in their order.
        base: the file of the base; None where it holds nothing.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    hash: str
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    files: tuple[str, ...]
    base: str | None
    scores: tuple[float, ...]
    curve: tuple[tuple[float, float], ...]
    collect_s: float
    base_score: float | None
    settings: dict[str, Json]
    runs: tuple[str, ...]
    epochs: tuple[int, ...]


def export(zoo: Zoo, folder: Path, form: str = "safetensors", *, matrix: bool = False) -> Path:
    """Write a zoo into a new or empty folder; return the folder.

    Args:
        zoo: the checkpoints.
        folder: where to.
        form: "safetensors", or "pth" for files of torch.save.
        matrix: whether to write ``matrix.npy`` too.

    Raises:
        BadRequest: an unknown format, or a folder that holds something.
    """
    if form not in FORMATS:
        raise BadRequest(f"--format {form}: expected {' or '.join(FORMATS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadRequest(f"{folder} is there already: name a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    names = _names(zoo, form)
    for name, row in zip(names, zoo.vectors, strict=True):
        _write({**zoo.base, **zoo.layout.unflatten(row)}, folder / name)
    if zoo.base:
        _write(zoo.base, folder / f"{BASE}.{form}")
    if matrix:
        np.save(folder / MATRIX, zoo.vectors.numpy())
    manifest = Manifest(
        hash=zoo.hash,
        names=zoo.layout.names,
        shapes=zoo.layout.shapes,
        files=tuple(names),
        base=f"{BASE}.{form}" if zoo.base else None,
        scores=zoo.scores,
        curve=zoo.curve,
        collect_s=zoo.collect_s,
        base_score=zoo.base_score,
        settings=zoo.settings,
        runs=zoo.runs,
        epochs=zoo.epochs,
    )
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    return folder


def _names(zoo: Zoo, form: str) -> list[str]:
    """Return the file name of every checkpoint: its number, and its score where that is known."""
    digits = max(4, len(str(len(zoo) - 1)))
    scores = [f"_score{score:.4f}" for score in zoo.scores] or [""] * len(zoo)
    return [f"{row:0{digits}}{score}.{form}" for row, score in enumerate(scores)]


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    # Copies, because views of one vector would each be saved with all of it.
    own = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    if path.suffix == ".safetensors":
        save_file(own, path)
    else:
        torch.save(own, path)


def is_exported(files: Sequence[Path]) -> bool:
    """Return whether the only path is a folder that ``export`` wrote."""
    return len(files) == 1 and (files[0] / MANIFEST).is_file()


def read(folder: Path) -> Zoo:
    """Return the zoo of a folder that ``export`` wrote.

    Raises:
        BadRequest: a file is missing or damaged, or they are not those that were exported.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(reading.content(path, LIMIT, "manifest of a zoo"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadRequest(f"{path}: {place}: {first['msg']}: export the zoo again") from None
    files = [*manifest.files, *([manifest.base] if manifest.base else [])]
    if outside := [name for name in files if Path(name).name != name]:
        raise BadRequest(f"{path} names {outside[0]!a}, expected files beside it")
    layout = Layout(manifest.names, manifest.shapes)
    rows = [layout.flatten(read_weights(folder / name)) for name in manifest.files]
    if not rows:
        raise BadRequest(f"{path} names no checkpoints: export the zoo again")
    told = {"scores", "curve", "collect_s", "base_score", "settings", "runs", "epochs"}
    base = read_weights(folder / manifest.base) if manifest.base else {}
    zoo = Zoo(torch.stack(rows), layout, base, **manifest.model_dump(include=told))
    if zoo.hash != manifest.hash:
        raise BadRequest(
            f"the files in {folder} are not those that were exported, so that scores and times in {MANIFEST} are not "
            f"theirs: remove {MANIFEST} to import them as others"
        )
    return zoo
