"""Every population against the reference: what its models are made of, and whether they are copies.

Two models are far apart where they put out different things (F, see ``Population.coordinates``) and where their weights
differ (W, hidden units aligned). Each distance is taken over the reference's own median, and J = sqrt(F^2 + W^2).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bench import declared
from bench.contract import Control
from bench.judge.describe import interval
from bench.judge.population import Population
from bench.metrics import mixture
from bench.metrics.copying import copy_test
from bench.metrics.mixture import Group, Mixture
from bench.metrics.statistics import percentiles
from bench.records.judged import KINDS, Composition, CopyTest, Judgement
from bench.system.randomness import derive

NEW, COPIES = "new", "copies"
COPY = Control("copy")  # it enters no mixture: the checkpoints themselves stand for their copies


@dataclasses.dataclass(frozen=True)
class Against:
    """All populations against the reference.

    Attributes:
        judgements: by the population's key.
        resolution: new share of one half of the reference against the other, minus the largest of any control.
        models: number of models of the reference.
    """

    judgements: Mapping[str, Judgement]
    resolution: float
    models: int


def against_reference(populations: Sequence[Population], rng: torch.Generator) -> Against | None:
    """Judge every population beside the reference; None without one, or where its models cannot be told apart.

    A control, and the reference, are judged by one half of their models: the other half takes their place among the
    parts of the mixture.

    Args:
        populations: originals, reference, generated models and controls.
        rng: of the bootstrap; every population draws from a source of its own.
    """
    field = _Field.of(populations)
    if field is None:
        return None
    judgements = {
        one.key: field.judgement(one.key, derive(rng, one.key))
        for one in populations
        if one.origin.role != "original"
    }
    new = {key: found.composition.new.value for key, found in judgements.items()}
    trivial = [new[key] for key, kind in field.kinds.items() if kind != NEW and key in new]
    resolution = new["reference"] - max(trivial, default=0.0)
    return Against(judgements, resolution, len(field.rows["reference"]))


@dataclasses.dataclass(frozen=True)
class _Field:
    """All models, and the distances between them.

    Attributes:
        outputs: distance F.
        joint: distance J.
        rows: numbers of each population's models, by key.
        kinds: what the parts of a mixture are made of, by key.
    """

    outputs: Float[Tensor, "N N"]
    joint: Float[Tensor, "N N"]
    rows: Mapping[str, Int64[Tensor, " n"]]
    kinds: Mapping[str, str]

    @classmethod
    def of(cls, populations: Sequence[Population]) -> "_Field | None":
        """Compute all distances; see ``against_reference``."""
        ends = torch.tensor([len(one) for one in populations]).cumsum(0).tolist()
        rows = {
            one.key: torch.arange(end - len(one), end)
            for one, end in zip(populations, ends, strict=True)
        }
        if len(rows.get("reference", ())) < 2:
            return None
        outputs = _distances([one.coordinates for one in populations])
        weights = _distances([one.weights for one in populations if one.weights is not None])
        held = rows["reference"]
        scales = [_median(distances[held[:, None], held]) for distances in (outputs, weights)]
        if min(scales) <= 0:
            return None
        joint = torch.hypot(outputs / scales[0], weights / scales[1])
        kinds = {"original": COPIES, "reference": NEW}
        for one in populations:
            control = one.origin.control
            if control is not None and control != COPY and (kind := declared.made_of(control)):
                kinds[one.key] = kind
        return cls(outputs, joint, rows, kinds)

    def judgement(self, key: str, rng: torch.Generator) -> Judgement:
        """Judge one population."""
        parts = {name: Group(self.rows[name], whole=name == "original") for name in self.kinds}
        target = self.rows[key]
        if key in parts and len(target) > 1:
            parts[key], target = Group(target[1::2]), target[::2]
        found = mixture.fit(self.joint, Group(target), list(parts.values()), rng)
        held = parts["reference"].rows
        scale = float(self.joint[held[:, None], held].sum() / (len(held) * (len(held) - 1)))
        return Judgement(
            composition=_composition(found, [self.kinds[name] for name in parts], scale),
            copying=self._copying(target, held),
        )

    def _copying(self, target: Int64[Tensor, " n"], held: Int64[Tensor, " m"]) -> CopyTest:
        nearest = self.outputs[:, self.rows["original"]].min(1).values
        nearer, p = copy_test(nearest[target], nearest[held])
        return CopyTest(nearer=nearer, p=p)


def _composition(found: Mixture, kinds: Sequence[str], scale: float) -> Composition:
    """Return the shares by kind, with intervals; the residual over the reference's mean distance."""
    shares = {}
    for kind in KINDS:
        of_kind = torch.tensor([one == kind for one in kinds])
        value = float(found.shares[of_kind].sum())
        shares[kind] = interval(value, percentiles(found.resampled[:, of_kind].sum(1)))
    return Composition(**shares, residual=found.residual / scale, p=found.p)


def _distances(points: Sequence[Float[Tensor, "_ P"]]) -> Float[Tensor, "N N"]:
    """Return the Euclidean distances between all rows, through products of centred rows."""
    rows = torch.cat([part.double() for part in points])
    rows -= rows.mean(0)
    return torch.cdist(rows, rows, compute_mode="use_mm_for_euclid_dist")


def _median(distances: Float[Tensor, "m m"]) -> float:
    """Return the median distance between different models."""
    above = torch.triu_indices(len(distances), len(distances), 1)
    return float(distances[above[0], above[1]].median())
