"""Alignment of hidden units, which can be permuted without changing a network's function.

Weight matching of Git Re-Basin (Ainsworth et al. 2022, arXiv 2209.04836, section 3.2 and algorithm 1).
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest

Places = list[tuple[str, int]]  # tensors and their axes that one group of hidden units runs along
LARGEST = 2**28  # values of a zoo that is aligned without being asked for: 1 GiB
KEPT = 2**15  # evenly spaced parameters by which two models are compared
# Names of the tensors of chains of layers: MLP-3 and ConvNet-3, DeepWeightFlow's MLP, and the CNNs of Model Zoos.
CHAIN = re.compile(r"(|fc|module_list\.)(\d+)\.(?:weight|bias)")
BENT = "module_list."  # prefix of the chains whose activations, tanh or GELU, let no unit be scaled
HEADS, PROJECTIONS = ("fc", "linear"), ("downsample", "shortcut")  # of ResNets
PASSES = 100  # of coordinate descent; it ends when no group improves, in practice after a few
LEAST = 1e-6  # share of a likeness by which it must grow, above rounding
PART = 2**22  # values of models that are aligned at once


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
    if all(map(CHAIN.fullmatch, shapes)):
        return _chain(shapes)
    if any(name.startswith("layer1.") for name in shapes):
        found = _resnet(shapes)
        if {name for places in found.values() for name, _ in places} >= {
            name for name in shapes if not name.startswith(HEADS)
        }:
            return found
    raise BadRequest(
        "hidden units can be aligned in chains of layers and ResNets only: leave --align out"
    )


def found_groups(zoo: Zoo) -> dict[str, Places] | None:
    """Return the groups of hidden units; None where there are none, for a single checkpoint, and for large zoos."""
    if len(zoo) < 2 or zoo.vectors.numel() > LARGEST:
        return None
    try:
        return groups(zoo)
    except BadRequest:
        return None


def _number(name: str) -> int:
    """Return the number of the layer of a chain that a tensor belongs to."""
    found = CHAIN.fullmatch(name)
    assert found is not None
    return int(found[2])


def _chain(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Places]:
    """Return the groups of a chain: the outputs of each layer are the inputs of the next one."""
    unit_groups: dict[str, Places] = {}
    last: str | None = None
    # In the order of the layers, whatever the layout's: files of state dicts are sorted by name.
    for name in sorted(shapes, key=lambda name: (_number(name), name.endswith("bias"))):
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
        for projection in (f"{block}.{name}" for name in PROJECTIONS):
            if f"{projection}.0.weight" in shapes:
                out = block
                unit_groups[stream].append((f"{projection}.0.weight", 1))
                unit_groups[out] = [(f"{projection}.0.weight", 0), *_norm(f"{projection}.1")]
        source = stream
        for index in range(1, convolutions + 1):
            target = out if index == convolutions else f"{block}.{index}"
            unit_groups[source].append((f"{block}.conv{index}.weight", 1))
            made = [(f"{block}.conv{index}.weight", 0), *_norm(f"{block}.bn{index}")]
            unit_groups.setdefault(target, []).extend(made)
            source = target
        stream = out
    unit_groups[stream] += [(f"{head}.weight", 1) for head in HEADS if f"{head}.weight" in shapes]
    return unit_groups


def _norm(name: str) -> Places:
    return [(f"{name}.weight", 0), (f"{name}.bias", 0)]


# Tensors of n models, n in front of each one's own shape --------------------------------------------------------------


def rows(tensor: Float[Tensor, "n *shape"], axis: int, units: int) -> Float[Tensor, "n units rest"]:
    """Return every model's tensor as one row a unit; a flattened feature map counts as its channels."""
    return tensor.movedim(axis + 1, 1).reshape(len(tensor), units, -1)


def unit_count(tensors: Mapping[str, Tensor], places: Places) -> int:
    """Return the number of units of a group."""
    name, axis = places[0]
    return tensors[name].shape[axis + 1]


def changed(
    tensors: Mapping[str, Tensor], places: Places, change: Callable[[Tensor, int], Tensor]
) -> dict[str, Tensor]:
    """Return the tensors with the units of one group changed.

    Args:
        tensors: of the models, by name.
        places: of the group.
        change: returns the rows of a tensor, changed, from those rows and the axis that they run along.
    """
    units, new = unit_count(tensors, places), dict(tensors)
    for name, axis in places:
        shape = new[name].movedim(axis + 1, 1).shape
        wide = change(rows(new[name], axis, units), axis)
        new[name] = wide.reshape(shape).movedim(1, axis + 1)
    return new


def permute(
    tensors: Mapping[str, Tensor], places: Places, orders: Int64[Tensor, "n units"]
) -> dict[str, Tensor]:
    """Return the tensors with one group's units in another order, one for each model."""
    models = torch.arange(len(orders))[:, None]
    return changed(tensors, places, lambda wide, axis: wide[models, orders])


def match(
    tensors: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    unit_groups: Mapping[str, Places],
) -> dict[str, Tensor]:
    """Permute the hidden units of n models to match a reference's, group after group until none improves.

    It starts from an order that is made from the first layer to the last, which undoes any permutation of the
    reference itself; from the units' own order, narrow ResNets stay in another one that no single group improves.

    Args:
        tensors: of the models, by name.
        reference: of what each of them is to match.
        unit_groups: their groups of hidden units.
    """
    current = _forward(tensors, reference, unit_groups)
    for _ in range(PASSES):
        moved = False
        for places in unit_groups.values():
            orders, better = _assigned(current, reference, places)
            if better.any():
                orders = orders.where(better[:, None], torch.arange(orders.shape[1]))
                current, moved = permute(current, places, orders), True
        if not moved:
            break
    return current


def _forward(
    tensors: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    unit_groups: Mapping[str, Places],
) -> dict[str, Tensor]:
    """Match each group once, by those of its tensors alone whose other axis is matched already, or is in no group."""
    current, unmatched = (
        dict(tensors),
        {place for places in unit_groups.values() for place in places},
    )
    for places in unit_groups.values():
        ready = [(name, axis) for name, axis in places if (name, 1 - axis) not in unmatched]
        orders, _ = _assigned(current, reference, ready or places)
        current = permute(current, places, orders)
        unmatched -= set(places)
    return current


def _assigned(
    tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor], places: Places
) -> tuple[Int64[Tensor, "n units"], Bool[Tensor, " n"]]:
    """Return each model's order of a group's units that is most like the reference's, and whether it improves."""
    units = unit_count(tensors, places)
    pairs = (
        rows(reference[name], axis, units) @ rows(tensors[name], axis, units).mT
        for name, axis in places
    )
    gain = functools.reduce(torch.add, pairs)
    best = [linear_sum_assignment(one, maximize=True)[1] for one in gain.numpy()]
    orders = torch.from_numpy(np.stack(best))
    now = gain.diagonal(dim1=1, dim2=2).sum(1)
    better = gain.gather(2, orders[:, :, None]).sum((1, 2)) - now > LEAST * now.abs()
    return orders, better


def align(
    vectors: Float[Tensor, "n D"],
    references: Float[Tensor, "*m D"],
    layout: Layout,
    unit_groups: Mapping[str, Places],
) -> Float[Tensor, "n D"]:
    """Return every vector with its hidden units permuted to match a reference's: one for all, or one for each."""
    aligned, targets = torch.empty_like(vectors), references.expand(len(vectors), -1)
    step = max(1, PART // layout.dim)
    for low in range(0, len(vectors), step):
        part = slice(low, low + step)
        one, other = (layout.unflatten(some[part].double()) for some in (vectors, targets))
        aligned[part] = layout.flatten(match(one, other, unit_groups)).float()
    return aligned


def align_zoo(zoo: Zoo) -> Zoo:
    """Return the zoo with every checkpoint's hidden units permuted to match the first one's; functions stay the same.

    Raises:
        BadRequest: hidden units cannot be permuted; see ``groups``.
    """
    vectors = align(zoo.vectors, zoo.vectors[0], zoo.layout, groups(zoo))
    return dataclasses.replace(zoo, vectors=vectors)


def scales(
    tensors: Mapping[str, Tensor], places: Places
) -> tuple[Places, Float[Tensor, "n units"]]:
    """Return a group's tensors that can be scaled without changing a ReLU network, and the scales that balance them.

    A unit's output is scaled by the last layer that makes it (a normalization, where there is one), and scaled back by
    the layers that read it. Balanced, both have the same length in every unit (path balance; Neyshabur et al. 2015).
    """
    last = max(_number(name) for name, axis in places if axis == 0)
    making = [(name, axis) for name, axis in places if axis == 0 and _number(name) == last]
    reading = [(name, axis) for name, axis in places if axis == 1]
    units = unit_count(tensors, places)
    made, read = (
        torch.cat([rows(tensors[name], axis, units) for name, axis in part], dim=2).norm(dim=2)
        for part in (making, reading)
    )
    factors = (read / made).sqrt()
    return [*making, *reading], factors.where((factors > 0) & factors.isfinite(), 1.0)


def rescale(
    tensors: Mapping[str, Tensor], places: Places, factors: Float[Tensor, "n units"]
) -> dict[str, Tensor]:
    """Return the tensors with every unit's output multiplied by a factor, and divided by it where it is read.

    Args:
        tensors: of the models, by name.
        places: those of ``scales``.
        factors: above 0.
    """
    each = factors[:, :, None]
    return changed(tensors, places, lambda wide, axis: wide * each if axis == 0 else wide / each)


def regrouped(
    vectors: Float[Tensor, "n D"],
    layout: Layout,
    unit_groups: Mapping[str, Places],
    change: Callable[[dict[str, Tensor], Places], dict[str, Tensor]],
) -> Float[Tensor, "n D"]:
    """Return all models with each group of their hidden units changed, one after another, in float64.

    Args:
        vectors: the models.
        layout: of their tensors.
        unit_groups: the groups of hidden units.
        change: returns the models' tensors with one group changed.
    """
    tensors = layout.unflatten(vectors.double())
    for places in unit_groups.values():
        tensors = change(tensors, places)
    return layout.flatten(tensors).float()


def scalable(layout: Layout) -> bool:
    """Return whether hidden units can be scaled: whether the networks are chains of ReLU layers."""
    found = [CHAIN.fullmatch(name) for name in layout.names]
    return all(one is not None and one[1] != BENT for one in found)


def balanced(
    vectors: Float[Tensor, "n D"], layout: Layout, unit_groups: Mapping[str, Places]
) -> Float[Tensor, "n D"]:
    """Return chains of ReLU layers with every hidden unit's scale balanced, which leaves what they do as it is."""
    if not scalable(layout):
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
            vectors = align(rows, self.targets[nearest], self.layout, self.unit_groups)
        return vectors[:, self.kept].clone()

    @property
    def originals(self) -> Float[Tensor, "K W"]:
        """The parameters of the checkpoints."""
        return self.targets[:, self.kept].clone()
