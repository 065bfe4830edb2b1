"""Official zoos: checkpoints and references that come with a task, so that anybody's records stand on one board."""

import dataclasses
from pathlib import Path

from bench.contract import Task
from bench.contract.zoo import Zoo
from bench.contract.zoo_header import ZooHeader, read_header
from bench.errors import BadRequest
from bench.records.values import canonical, recorded
from bench.runs.stages import Reference, save_reference
from bench.system.data import Settings

_SUFFIX = ".safetensors"


def find(task: Task, k: int, seed: int) -> Path | None:
    """Return the file of the official zoo that a task would collect with k checkpoints and a seed; None without one."""
    if task.official is None:
        return None
    wanted = _collection(task)
    for path in sorted(task.official.glob(f"*{_SUFFIX}")):
        if path == reference_file(path):
            continue
        header = read_header(path)
        if (header.k, header.seed) == (k, seed) and _fits(task, header, wanted):
            return path
    return None


def _collection(task: Task) -> Settings:
    """Return what determines the checkpoints of a task, without what only their scores depend on."""
    left_out = (*task.scoring, "scoring", "train_size", "val_size")
    return {name: value for name, value in task.identity().items() if name not in left_out}


def _fits(task: Task, header: ZooHeader, wanted: Settings) -> bool:
    """Return whether a zoo was collected as wanted; a setting that is younger than the zoo had its default then."""
    usual = {field.name: field.default for field in dataclasses.fields(task)}
    said = {name: header.settings.get(name, usual.get(name)) for name in wanted}
    return canonical(recorded(said)) == canonical(recorded(dict(wanted)))


def reference_file(zoo: Path) -> Path:
    """Return the file of the reference beside the file of an official zoo."""
    name = zoo.name.removesuffix(_SUFFIX).removesuffix(".reference")
    return zoo.with_name(f"{name}.reference{_SUFFIX}")


def write(zoo: Zoo, reference: Reference | None, path: Path) -> None:
    """Write a zoo as an official one, and its reference beside it.

    Raises:
        BadRequest: there is no reference, so that no verdict could be given.
    """
    if reference is None:
        raise BadRequest("an official zoo needs a reference: say --held-out 100")
    dataclasses.replace(zoo, settings={**zoo.settings, "official": True}).save(path)
    save_reference(reference, reference_file(path))
