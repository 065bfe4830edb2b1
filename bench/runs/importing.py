"""Import of state dicts from other programs as a zoo."""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest, printable
from bench.formats import find, states
from bench.formats.checkpoint import Checkpoint
from bench.formats.choice import chosen
from bench.runs import exporting, norms
from bench.system.data import Json
from bench.system.progress import say
from bench.system.weights import read_weights

SCORES = (
    "test_acc",
    "val_acc",
    "acc",
    "accuracy",
    "score",
)  # metrics that are a score, the first that all have


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which checkpoints of those that are found are imported, and how they are read.

    Attributes:
        form: the format of folders, see ``bench.formats.find``.
        epoch, where, limit: which checkpoints, see ``bench.formats.choice.chosen``.
        norm_eps: what batch normalization adds to running variances.
    """

    form: str = find.AUTO
    epoch: str = "all"
    where: tuple[str, ...] = ()
    limit: int | None = None
    norm_eps: float = norms.EPS

    def of(self, files: Sequence[Path]) -> list[Checkpoint]:
        """Return the checkpoints that are wanted, in the order of their paths."""
        found = sorted(find.find(files, self.form), key=lambda one: _number_order(one.path))
        if not found:
            raise BadRequest("no checkpoints to import: expected .pth or .safetensors state dicts")
        return chosen(found, epoch=self.epoch, where=self.where, limit=self.limit)


def import_zoo(
    files: Sequence[Path],
    base: Path | None = None,
    runs: str | None = None,
    choice: Choice | None = None,
) -> Zoo:
    """Return the zoo of the state dicts in files and folders, in the order of their names.

    The floating-point tensors that differ between the files make up the checkpoints; tensors that are equal in all of
    them, and those that the file ``base`` adds, make up the base. Running statistics of batch normalization are never
    a checkpoint's own: those that differ are folded into the layer's weight and bias.

    Args:
        files: the state dicts, or folders of them.
        base: file of the frozen rest of the network.
        runs: what tells the run that a checkpoint comes from, see ``labels``; None takes what the format tells.
        choice: which of the checkpoints, and how they are read.

    A folder that ``bench.runs.exporting`` wrote becomes the very zoo that it was.

    Raises:
        BadRequest: no file, an unreadable one, files that do not hold the same tensors, or a file without a run.
    """
    choice = choice or Choice()
    if base is None and runs is None and choice == Choice() and exporting.is_exported(files):
        return exporting.read(files[0])
    found = choice.of(files)
    paths = [one.path for one in found]
    told = labels(paths, runs) if runs is not None else _told(found)
    frozen = states.unprefixed(read_weights(base)) if base else {}
    every = _Every(found, frozen if base else None, choice.norm_eps)
    layout = Layout.of({name: every.first[name] for name in every.varying()})
    rest = {name: tensor for name, tensor in every.first.items() if name not in layout.names}
    kept = {name: tensor for name, tensor in (frozen | rest).items() if name not in layout.names}
    names: list[Json] = list(_apart(paths))
    settings: dict[str, Json] = {"imported": names}
    if every.fold:
        settings["norm_eps"] = choice.norm_eps
        say(f"note: statistics of {len(every.fold)} normalization layers differ: folded into them")
    return Zoo(
        every.rows(layout),
        layout,
        kept,
        scores=_scores(found),
        settings=settings,
        runs=told,
        epochs=_epochs(found),
    )


class _Every:
    """The states of all checkpoints, read one after another: there may be too many for the memory.

    Args:
        found: the checkpoints.
        base: the state dict of the rest of the network, if one is given.
        eps: of batch normalization.

    Attributes:
        first: the state of the first checkpoint.
        fold: the layers whose running statistics are folded.

    Raises:
        BadRequest: the states do not hold the same tensors, or a state has a running variance below 0.
    """

    def __init__(
        self, found: Sequence[Checkpoint], base: Mapping[str, Tensor] | None, eps: float
    ) -> None:
        self._found, self._base, self._eps = found, base, eps
        self.fold: list[str] = []
        raw = states.read(found[0], base)
        _check_base(base or {}, raw, found[0].path)
        differ = {
            name for one, state in self._read() for name in _differing(raw, state, found[0], one)
        }
        self.fold = norms.layers(name for name in raw if name in differ)
        self.first = self._folded(raw, found[0])
        self._differ = differ

    def varying(self) -> list[str]:
        """Return the names of the generated tensors: those that differ; of equal states, or a single one, all.

        Raises:
            BadRequest: there are none, or whole numbers differ, which no generator makes.
        """
        if self.fold:
            self._differ |= {n for _, s in self._read() for n in self.first if self._other(n, s)}
        own = [name for name in self.first if not norms.is_statistic(name)]
        differing = [name for name in own if name in self._differ]
        for name in differing:
            if not self.first[name].is_floating_point():
                raise BadRequest(
                    f"'{printable(name)}' holds whole numbers that differ between checkpoints: expected "
                    "floating-point ones"
                )
        floats = [name for name in own if self.first[name].is_floating_point()]
        if not floats:
            raise BadRequest(f"{self._found[0].path} holds no floating-point tensors")
        return differing or floats

    def rows(self, layout: Layout) -> Float[Tensor, "K D"]:
        """Return the generated part of every checkpoint."""
        rows = torch.empty(len(self._found), layout.dim)
        for row, (_, state) in zip(rows, self._read(), strict=True):
            row.copy_(layout.flatten({name: state[name].float() for name in layout.names}))
        return rows

    def _read(self) -> Iterator[tuple[Checkpoint, dict[str, Tensor]]]:
        for one in self._found:
            yield one, self._folded(states.read(one, self._base), one)

    def _folded(self, state: dict[str, Tensor], one: Checkpoint) -> dict[str, Tensor]:
        for name, tensor in state.items():
            if name.rpartition(".")[2] == norms.VARIANCE:
                norms.check_variance(tensor, name, one.path)
        return norms.folded(state, self.fold, self._eps, one.path) if self.fold else state

    def _other(self, name: str, state: Mapping[str, Tensor]) -> bool:
        return not torch.equal(self.first[name], state[name])


def _differing(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], of_a: Checkpoint, of_b: Checkpoint
) -> list[str]:
    """Return the names of tensors that differ between two states, which hold the same ones."""
    _check_same(a, b, of_a.path, of_b.path)
    return [n for n in a if not norms.is_counter(n) and not torch.equal(a[n], b[n])]


def _check_base(base: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    for name in base.keys() & state.keys():
        if base[name].shape != state[name].shape:
            raise BadRequest(
                f"{path}: '{printable(name)}' has shape {tuple(state[name].shape)}, "
                f"that of --base has {tuple(base[name].shape)}"
            )


def _told(found: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Return the run of every checkpoint; nothing where one does not tell it."""
    runs = tuple(one.run for one in found)
    return runs if all(runs) else ()


def _epochs(found: Sequence[Checkpoint]) -> tuple[int, ...]:
    """Return the epoch of every checkpoint; nothing where one does not tell it."""
    epochs = tuple(one.epoch for one in found if one.epoch is not None)
    return epochs if len(epochs) == len(found) else ()


def _scores(found: Sequence[Checkpoint]) -> tuple[float, ...]:
    """Return the score that is told of every checkpoint; nothing where one has none."""
    for name in SCORES:
        if all(name in one.metrics for one in found):
            return tuple(one.metrics[name] for one in found)
    return ()


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


def _check_same(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], path_a: Path, path_b: Path
) -> None:
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
