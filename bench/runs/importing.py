"""Import of state dicts from other programs as a zoo."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest, printable
from bench.system.data import Json
from bench.system.weights import read_weights

SUFFIXES = (".pth", ".pt", ".safetensors")


def import_zoo(files: Sequence[Path], base: Path | None = None, runs: str | None = None) -> Zoo:
    """Return the zoo of the state dicts in files and folders, in the order of their names.

    The floating-point tensors that differ between the files make up the checkpoints; tensors that are equal in all of
    them, and those that the file ``base`` adds, make up the base.

    Args:
        files: the state dicts, or folders of them.
        base: file of the frozen rest of the network.
        runs: what tells the run that a checkpoint comes from, see ``labels``; None where that is not known.

    Raises:
        BadRequest: no file, an unreadable one, files that do not hold the same tensors, or a file without a run.
    """
    paths = sorted((path for file in files for path in _inside(file)), key=_number_order)
    if not paths:
        raise BadRequest("no checkpoints to import: expected .pth or .safetensors state dicts")
    told = labels(paths, runs) if runs is not None else ()
    states = [read_weights(path) for path in paths]
    first = states[0]
    for path, state in zip(paths, states, strict=True):
        _check_same(first, state, paths[0], path)
    varying = [name for name in first if first[name].is_floating_point() and _differs(name, states)]
    if len(states) == 1 or not varying:
        varying = [name for name, tensor in first.items() if tensor.is_floating_point()]
    if not varying:
        raise BadRequest(f"{paths[0]} holds no floating-point tensors")
    layout = Layout.of({name: first[name] for name in varying})
    rows = torch.stack([layout.flatten({n: s[n].float() for n in varying}) for s in states])
    rest = read_weights(base) if base else {}
    rest |= {name: tensor for name, tensor in first.items() if name not in varying}
    kept = {name: tensor for name, tensor in rest.items() if name not in varying}
    names: list[Json] = [path.name for path in paths]
    return Zoo(rows, layout, kept, settings={"imported": names}, runs=told)


def labels(paths: Sequence[Path], runs: str) -> tuple[str, ...]:
    r"""Return the label of the run that each file's checkpoint comes from.

    Args:
        paths: the files.
        runs: "file" where every file is of a run of its own; "folder" where those of a run lie in one folder; or a
            regular expression that finds the run in a file's path: what its group matches, or all of it.

    Raises:
        BadRequest: no such expression, or one that finds nothing in a path.

    >>> labels([Path("zoo/run3/1.pth"), Path("zoo/run4/1.pth")], "folder")
    ('run3', 'run4')
    >>> labels([Path("acc0.95_seed0020.pth")], r"seed(\d+)")
    ('0020',)
    """
    if runs == "file":
        return _apart(paths)
    if runs == "folder":
        return _apart([path.parent for path in paths])
    try:
        pattern = re.compile(runs)
    except re.error as error:
        raise BadRequest(
            f"--runs {printable(runs)} is neither file, folder nor a regular expression: {error}"
        ) from None
    if pattern.groups > 1:
        raise BadRequest(f"--runs {printable(runs)} has {pattern.groups} groups, expected one")
    return tuple(_found(pattern, path) for path in paths)


def _apart(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the paths as text without the folders that all share, so that moving them all changes no label."""
    shared = os.path.commonpath([path.absolute().parent for path in paths])
    return tuple(path.absolute().relative_to(shared).as_posix() for path in paths)


def _found(pattern: re.Pattern[str], path: Path) -> str:
    match = pattern.search(path.as_posix())
    run = match.group(pattern.groups) if match else None
    if not run:
        raise BadRequest(f"{path}: --runs {printable(pattern.pattern)} finds no run in this path")
    return run


def _number_order(path: Path) -> list[tuple[bool, str | int]]:
    """Return a sort key that puts 2.pth before 10.pth."""
    parts = re.split(r"(\d+)", str(path))
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in parts]


def _inside(path: Path) -> list[Path]:
    """Return the checkpoint files of a folder, or the file itself."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    return [path]


def _check_same(a: dict[str, Tensor], b: dict[str, Tensor], path_a: Path, path_b: Path) -> None:
    odd = sorted(set(a).symmetric_difference(b))
    if odd:
        raise BadRequest(
            f"{path_b} and {path_a} do not hold the same tensors: only one has '{odd[0]}'"
        )
    for name in a:
        if a[name].shape != b[name].shape:
            raise BadRequest(
                f"{path_b}: '{name}' has shape {tuple(b[name].shape)}, "
                f"expected {tuple(a[name].shape)} as in {path_a}"
            )


def _differs(name: str, states: list[dict[str, Tensor]]) -> bool:
    return any(not torch.equal(states[0][name], state[name]) for state in states[1:])
