"""One checkpoint on disk, and the files that hold none. Imports no torch."""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from bench.errors import BadRequest

SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar")
# Files of training programs that lie beside checkpoints, and hold no network.
_BESIDE = re.compile(
    r"(optim|sched|scaler|rng_state|random_state|training_args|trainer_state|tokenizer)", re.IGNORECASE
)  # fmt: skip
# First bytes of what torch.save writes, a zip or, before version 1.6, a pickle.
_SAVED = (b"PK\x03\x04", b"\x80\x02\x8a\x0a\x6c\xfc")
_SHARD = re.compile(r"(?P<name>.*?)[-_.]?(?P<index>\d{5})-of-(?P<count>\d{5})(?P<end>\..+)?")
_STEP = re.compile(r"(?:checkpoint|ckpt|step|epoch|iter|global_step)[-_=]?0*(\d+)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk.

    Attributes:
        files: its file, or its shards; of a database, the folder.
        run: the label of the run of training that it comes from; empty where that is not told.
        epoch: the epoch or step of that run; None where that is not told.
        metrics: what is told of it, by name, such as test_acc.
        key: its name in a database; empty in a file of its own.
    """

    files: tuple[Path, ...]
    run: str = ""
    epoch: int | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    key: str = ""

    @property
    def path(self) -> Path:
        """The path that stands for it in messages and in the order of checkpoints."""
        return self.files[0] / self.key if self.key else self.files[0]


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder below, and itself, with the names of its files in order; hidden ones are left out."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(where), sorted(name for name in files if not name.startswith("."))


def holds_weights(path: Path) -> bool:
    """Return whether a file in a folder is a checkpoint, by its suffix or, without one, its first bytes."""
    if _BESIDE.match(path.name) or path.name.endswith(".index.json"):
        return False
    if path.suffix:
        return path.suffix.lower() in SUFFIXES
    with path.open("rb") as file:
        start = file.read(9)
    return start.startswith(_SAVED) or start[8:] == b"{"


def merged(paths: Iterable[Path]) -> list[tuple[Path, ...]]:
    """Return the files of every checkpoint: one, or all its shards, such as model-00001-of-00003.safetensors.

    Raises:
        BadRequest: a shard is missing.
    """
    groups: dict[object, list[Path]] = {}
    for path in paths:
        shard = _SHARD.fullmatch(path.name)
        own = (len(groups),)  # the same file may be given twice
        group = (path.parent, shard["name"], shard["count"], shard["end"]) if shard else own
        groups.setdefault(group, []).append(path)
    for files in groups.values():
        _check_whole(files)
    return [tuple(sorted(files)) for files in groups.values()]


def _check_whole(files: list[Path]) -> None:
    shards = [_SHARD.fullmatch(path.name) for path in files]
    found = {int(shard["index"]) for shard in shards if shard}
    for shard in shards[:1]:
        missing = sorted(set(range(1, int(shard["count"]) + 1)) - found) if shard else []
        if missing and shard:
            raise BadRequest(
                f"{files[0].parent / shard['name']}: shard {missing[0]} of {int(shard['count'])} is missing"
            )


def step_of(path: Path, root: Path) -> tuple[str, int | None]:
    """Return the run and the epoch that the folders of a path tell, such as run3/checkpoint-100; "" and None for none.

    Args:
        path: the file.
        root: the folder that was given, whose own name tells nothing.

    >>> step_of(Path("zoo/run3/checkpoint-100/model.pth"), Path("zoo"))
    ('run3', 100)
    """
    folders = path.absolute().parent.relative_to(root.absolute()).parts
    for depth in range(len(folders) - 1, -1, -1):
        if found := _STEP.fullmatch(folders[depth]):
            return "/".join(folders[:depth]), int(found[1])
    return "", None
