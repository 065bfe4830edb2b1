"""Alignment of hidden units, which can be permuted without changing a network's function.

Weight matching of Git Re-Basin (Ainsworth et al. 2022, arXiv 2209.04836, section 3.2 and algorithm 1).
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest

Places = list[tuple[str, int]]  # tensors and their axes that one group of hidden units runs along
LARGEST = 2**28  # values of a zoo that is aligned without being asked for: 1 GiB
KEPT = 2**15  # evenly spaced parameters by which two models are compared
CHAIN = r"\d+\.(weight|bias)"  # names of the tensors of MLP-3 and ConvNet-3
PASSES = 100  # of coordinate descent; it ends when no group improves, in practice after a few


def groups(zoo: Zoo) -> dict[str, Places]:
    """Return the groups of hidden units of a zoo of whole networks.

    Raises:
        BadRequest: a part of the network is frozen, or it is neither a chain of layers nor a ResNet.
    """
    frozen = [name for name in zoo.base if name.endswith((".weight", ".bias"))]
    if frozen:
        raise BadRequest(
            f"hidden units can be aligned in whole networks only, and '{frozen[0]}' is frozen: leave --align out"
        )
    for name, tensor in zoo.base.items():
        if name.endswith(("running_mean", "running_var")) and tensor.unique().numel() > 1:
            raise BadRequest(f"'{name}' of the base differs between units: leave --align out")
    shapes = dict(zip(zoo.layout.names, zoo.layout.shapes, strict=True))
    if any(name.startswith("layer1.") for name in shapes):
        return _resnet(shapes)
    if all(re.fullmatch(CHAIN, name) for name in shapes):
        return _chain(shapes)
    raise BadRequest(
        "hidden units can be aligned in MLP-3, ConvNet-3 and ResNets only: leave --align out"
    )


def found_groups(zoo: Zoo) -> dict[str, Places] | None:
    """Return the groups of hidden units; None where there are none, for a single checkpoint, and for large zoos."""
    if len(zoo) < 2 or zoo.vectors.numel() > LARGEST:
        return None
    try:
        return groups(zoo)
    except BadRequest:
        return None


def _chain(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Places]:
    """Return the groups of MLP-3 and ConvNet-3: the outputs of each layer are the inputs of the next one."""
    unit_groups: dict[str, Places] = {}
    last: str | None = None
    # In the order of the layers, whatever the layout's: files of state dicts are sorted by name.
    for name in sorted(
        shapes, key=lambda name: (int(name.partition(".")[0]), name.endswith("bias"))
    ):
        if len(shapes[name]) > 1:
            if last is not None:
                unit_groups[last].append((name, 1))
            last = name
            unit_groups[last] = []
        if last is not None:
            unit_groups[last].append((name, 0))
    if last is not None:
        del unit_groups[last]  # the classes are not interchangeable
    return unit_groups


def _resnet(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Places]:
    """Return the groups of a ResNet: units inside a block, and the residual stream until a shortcut projects it."""
    unit_groups: dict[str, Places] = {"stem": [("conv1.weight", 0), *_norm("bn1")]}
    stream = "stem"
    blocks = dict.fromkeys(m[0] for m in (re.match(r"layer\d+\.\d+", name) for name in shapes) if m)
    for block in blocks:
        convolutions = sum(f"{block}.conv{i}.weight" in shapes for i in (1, 2, 3))
        out = stream
        if f"{block}.downsample.0.weight" in shapes:
            out = block
            unit_groups[stream].append((f"{block}.downsample.0.weight", 1))
            unit_groups[out] = [
                (f"{block}.downsample.0.weight", 0),
                *_norm(f"{block}.downsample.1"),
            ]
        source = stream
        for index in range(1, convolutions + 1):
            target = out if index == convolutions else f"{block}.{index}"
            unit_groups[source].append((f"{block}.conv{index}.weight", 1))
            made = [(f"{block}.conv{index}.weight", 0), *_norm(f"{block}.bn{index}")]
            unit_groups.setdefault(target, []).extend(made)
            source = target
        stream = out
    unit_groups[stream].append(("fc.weight", 1))
    return unit_groups


def _norm(name: str) -> Places:
    return [(f"{name}.weight", 0), (f"{name}.bias", 0)]


def rows(tensor: Tensor, axis: int, units: int) -> Float[Tensor, "units rest"]:
    """Return a tensor as one row a unit; a flattened feature map counts as its channels."""
    return tensor.movedim(axis, 0).reshape(units, -1)


def permute(
    tensors: Mapping[str, Tensor], places: Places, order: Int64[Tensor, " units"]
) -> dict[str, Tensor]:
    """Return the tensors with one group's units in another order."""
    permuted = dict(tensors)
    for name, axis in places:
        moved = tensors[name].movedim(axis, 0)
        permuted[name] = (
            rows(tensors[name], axis, len(order))[order].reshape(moved.shape).movedim(0, axis)
        )
    return permuted


def match(
    tensors: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    unit_groups: Mapping[str, Places],
) -> dict[str, Tensor]:
    """Permute hidden units to match a reference, group by group until no group improves; return the tensors."""
    current = dict(tensors)
    for _ in range(PASSES):
        moved = False
        for places in unit_groups.values():
            units = current[places[0][0]].shape[places[0][1]]
            gain = torch.zeros(units, units, dtype=torch.float64)
            for name, axis in places:
                gain += rows(reference[name], axis, units) @ rows(current[name], axis, units).T
            order = torch.from_numpy(linear_sum_assignment(gain.numpy(), maximize=True)[1])
            better = gain[torch.arange(units), order].sum() - gain.trace()
            if better > 1e-6 * gain.trace().abs():
                current, moved = permute(current, places, order), True
        if not moved:
            break
    return current


def align(
    vectors: Float[Tensor, "n D"],
    reference: Float[Tensor, " D"],
    layout: Layout,
    unit_groups: Mapping[str, Places],
) -> Float[Tensor, "n D"]:
    """Return every vector with its hidden units permuted to match the reference's."""
    target = layout.unflatten(reference.double())
    matched = (match(layout.unflatten(vector.double()), target, unit_groups) for vector in vectors)
    return torch.stack([layout.flatten(tensors).float() for tensors in matched])


def align_zoo(zoo: Zoo) -> Zoo:
    """Return the zoo with every checkpoint's hidden units permuted to match the first one's; functions stay the same.

    Raises:
        BadRequest: hidden units cannot be permuted; see ``groups``.
    """
    vectors = align(zoo.vectors, zoo.vectors[0], zoo.layout, groups(zoo))
    return dataclasses.replace(zoo, vectors=vectors)


def scales(tensors: Mapping[str, Tensor], places: Places) -> tuple[Places, Float[Tensor, " units"]]:
    """Return a group's tensors that can be scaled without changing a ReLU network, and the scale that balances them.

    A unit's output is scaled by the last layer that makes it (a normalization, where there is one), and scaled back by
    the layers that read it. Balanced, both have the same length in every unit (path balance; Neyshabur et al. 2015).
    """
    making = [place for place in places if place[1] == 0]
    last = max((name.rpartition(".")[0] for name, _ in making), key=lambda name: int(name))
    making = [place for place in making if place[0].rpartition(".")[0] == last]
    reading = [place for place in places if place[1] == 1]
    units = tensors[places[0][0]].shape[places[0][1]]
    made, read = (
        torch.cat([rows(tensors[name], axis, units) for name, axis in part], dim=1).norm(dim=1)
        for part in (making, reading)
    )
    factor = (read / made).sqrt()
    return [*making, *reading], factor.where((factor > 0) & factor.isfinite(), 1.0)


def rescale(
    tensors: Mapping[str, Tensor], places: Places, factors: Float[Tensor, " units"]
) -> dict[str, Tensor]:
    """Return the tensors with every unit's output multiplied by a factor, and divided by it where it is read.

    Args:
        tensors: the tensors by name.
        places: those of ``scales``.
        factors: above 0.
    """
    scaled = dict(tensors)
    for name, axis in places:
        wide = rows(tensors[name], axis, len(factors))
        wide = wide * factors[:, None] if axis == 0 else wide / factors[:, None]
        moved = tensors[name].movedim(axis, 0)
        scaled[name] = wide.reshape(moved.shape).movedim(0, axis)
    return scaled


def regrouped(
    vectors: Float[Tensor, "n D"],
    layout: Layout,
    unit_groups: Mapping[str, Places],
    change: Callable[[dict[str, Tensor], Places], dict[str, Tensor]],
) -> Float[Tensor, "n D"]:
    """Return every model with each group of its hidden units changed, one after another, in float64.

    Args:
        vectors: the models.
        layout: of their tensors.
        unit_groups: the groups of hidden units.
        change: returns a model's tensors with one group changed.
    """
    changed = []
    for vector in vectors.double():
        tensors = layout.unflatten(vector)
        for places in unit_groups.values():
            tensors = change(tensors, places)
        changed.append(layout.flatten(tensors).float())
    return torch.stack(changed)


def balanced(
    vectors: Float[Tensor, "n D"], layout: Layout, unit_groups: Mapping[str, Places]
) -> Float[Tensor, "n D"]:
    """Return chains of layers with every hidden unit's scale balanced, which leaves what they do as it is."""
    if not all(re.fullmatch(CHAIN, name) for name in layout.names):
        return vectors
    return regrouped(
        vectors,
        layout,
        unit_groups,
        lambda tensors, places: rescale(tensors, *scales(tensors, places)),
    )


class Comparer:
    """Chooses the parameters by which models of one zoo are compared: evenly spaced, ``KEPT`` at most.

    Where hidden units can be permuted (not in zoos too large to sort), checkpoints are aligned to the first one, and
    any other model to the checkpoint that does what it does most closely: so a copy is found whatever the order of its
    units. Where units can be scaled as well, their scales are balanced.

    Args:
        zoo: the checkpoints.
    """

    def __init__(self, zoo: Zoo) -> None:
        self.layout, self.unit_groups = zoo.layout, found_groups(zoo)
        self.targets = zoo.vectors
        if self.unit_groups:
            rows = balanced(zoo.vectors, zoo.layout, self.unit_groups)
            self.targets = align(rows, rows[0], zoo.layout, self.unit_groups)
        dim = zoo.layout.dim
        self.kept = torch.linspace(0, dim - 1, min(dim, KEPT)).round().long()

    def __call__(
        self, vectors: Float[Tensor, "n D"], nearest: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n W"]:
        """Return the parameters of n models.

        Args:
            vectors: the models.
            nearest: the checkpoint that is most like each of them.
        """
        if self.unit_groups:
            rows = balanced(vectors, self.layout, self.unit_groups)
            aligned = [
                align(row[None], self.targets[near], self.layout, self.unit_groups)
                for row, near in zip(rows, nearest.tolist(), strict=True)
            ]
            vectors = torch.cat(aligned)
        return vectors[:, self.kept].clone()

    @property
    def originals(self) -> Float[Tensor, "K W"]:
        """The parameters of the checkpoints."""
        return self.targets[:, self.kept].clone()
