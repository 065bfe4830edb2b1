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
from bench.contract import Metric
from bench.judge.describe import interval
from bench.judge.population import Population
from bench.metrics.copying import copy_test
from bench.metrics.mixture import Group, Mixtures
from bench.metrics.quality import quality
from bench.metrics.span import span_residual
from bench.metrics.statistics import percentiles
from bench.metrics.two_sample import energy_test
from bench.metrics.variety import variety
from bench.records import verdict
from bench.records.judged import (
    KINDS,
    MARGIN,
    Composition,
    CopyTest,
    Fidelity,
    Judgement,
    Quality,
    Variety,
)
from bench.system.randomness import derive

Rows = Int64[Tensor, "_"]  # numbers of models
HALVES, PERMUTATIONS = 400, 999  # of the interval of variety, and of the exact tests


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


def against_reference(
    populations: Sequence[Population], metric: Metric, rng: torch.Generator
) -> Against | None:
    """Judge every population beside the reference; None without one, or where its models cannot be told apart.

    A control, and the reference, are judged by one half of their models: the other half takes their place among the
    parts of the mixture.

    Args:
        populations: originals, reference, generated models and controls.
        metric: of the scores.
        rng: of the bootstrap; every population draws from a source of its own.
    """
    models = _Models.of(populations, metric, derive(rng, "parts"))
    if models is None:
        return None
    judgements = {
        one.key: models.judgement(one.key, derive(rng, one.key))
        for one in populations
        if one.origin.role != "original"
    }
    new = {key: one.composition.new.value for key, one in judgements.items()}
    trivial = [new[key] for key, kind in models.kinds.items() if kind != "new" and key in new]
    resolution = new["reference"] - max(trivial, default=0.0)
    return Against(judgements, resolution, len(models.rows["reference"]))


def evidence(against: Against | None, key: str, *, lost: float, models: int) -> verdict.Evidence:
    """Return what the rule of the verdict reads of one population.

    Args:
        against: all populations against the reference; None without one.
        key: of the population.
        lost: see ``verdict.Evidence``.
        models: how many were generated, of a deterministic generator equal ones.
    """
    return verdict.Evidence(
        lost=lost,
        models=models,
        reference=against.models if against else 0,
        judgement=against.judgements[key] if against else None,
        resolution=against.resolution if against else None,
    )


@dataclasses.dataclass(frozen=True)
class _Models:
    """The models of all populations, and the distances between them.

    Attributes:
        metric: of the scores.
        rows: numbers of each population's models, by key.
        kinds: what the parts of a mixture are made of, by key.
        mixtures: of these parts.
        scores: validation scores.
        weights: the parameters that W compares.
        outputs, apart, joint: the distances F, W and J.
    """

    metric: Metric
    rows: Mapping[str, Rows]
    kinds: Mapping[str, str]
    mixtures: Mixtures
    scores: Float[Tensor, " N"]
    weights: Float[Tensor, "N W"]
    outputs: Float[Tensor, "N N"]
    apart: Float[Tensor, "N N"]
    joint: Float[Tensor, "N N"]

    @classmethod
    def of(
        cls, populations: Sequence[Population], metric: Metric, rng: torch.Generator
    ) -> "_Models | None":
        """Compute all distances; see ``against_reference``."""
        numbers = torch.arange(sum(map(len, populations))).split([len(p) for p in populations])
        rows = {one.key: own for one, own in zip(populations, numbers, strict=True)}
        held = rows.get("reference")
        if held is None or len(held) < 2:
            return None
        weights = torch.cat([one.weights for one in populations if one.weights is not None])
        kinds = _kinds(populations)
        parts = [Group(rows[key], whole=key == "original") for key in kinds]
        alone = [own for key, own in rows.items() if key not in kinds]
        among = torch.cat([part.rows for part in parts])
        outputs = _distances(
            torch.cat([one.coordinates for one in populations]), held, among, alone
        )
        apart = _distances(weights, held, among, alone)
        scales = [_median(distances[held[:, None], held]) for distances in (outputs, apart)]
        if min(scales) <= 0:
            return None
        joint = torch.hypot(outputs / scales[0], apart / scales[1])
        return cls(
            metric=metric,
            rows=rows,
            kinds=kinds,
            mixtures=Mixtures(joint, parts, rng),
            scores=torch.cat([one.val for one in populations]),
            weights=weights,
            outputs=outputs,
            apart=apart,
            joint=joint,
        )

    def judgement(self, key: str, rng: torch.Generator) -> Judgement:
        """Judge one population."""
        target, others, held = self.rows[key], None, self.rows["reference"]
        if key in self.kinds and len(target) > 1:
            others, target = target[1::2], target[::2]
            held = others if key == "reference" else held
        replaced = {} if others is None else {list(self.kinds).index(key): Group(others)}
        return Judgement(
            composition=self._composition(target, replaced, held, derive(rng, "mixture")),
            copying=self._copying(target, held),
            quality=self._quality(target, held),
            variety=self._variety(target, held, derive(rng, "variety")),
            fidelity=self._fidelity(target, held, derive(rng, "fidelity")),
            span_residual=self._span_residual(target),
        )

    def _composition(
        self, target: Rows, replaced: Mapping[int, Group], held: Rows, rng: torch.Generator
    ) -> Composition:
        """Return the shares by kind, with intervals; the residual over the reference's mean distance."""
        fitted = self.mixtures.fit(Group(target), rng, replaced)
        shares = {}
        for kind in KINDS:
            of_kind = torch.tensor([one == kind for one in self.kinds.values()])
            value = float(fitted.shares[of_kind].sum())
            shares[kind] = interval(value, percentiles(fitted.resampled[:, of_kind].sum(1)))
        if len(held) < 2:  # half of a reference of two or three: one model has no distance within
            held = self.rows["reference"]
        within = float(self.joint[held[:, None], held].sum() / (len(held) * (len(held) - 1)))
        return Composition(**shares, residual=fitted.residual / within, p=fitted.p)

    def _copying(self, target: Rows, held: Rows) -> CopyTest:
        nearest = self.outputs[:, self.rows["original"]].min(1).values
        nearer, p = copy_test(nearest[target], nearest[held])
        return CopyTest(nearer=nearer, p=p)

    def _quality(self, target: Rows, held: Rows) -> Quality | None:
        signed = self.metric.sign * self.scores
        scale = 1.0 if self.metric.percent else abs(float(signed[held].mean()))
        found = quality(signed[target], signed[held], MARGIN * scale)
        if found is None:
            return None
        return Quality(
            difference=interval(found.difference[0], found.difference[1:]),
            margin=MARGIN * scale,
            equivalence=found.equivalence,
        )

    def _variety(self, target: Rows, held: Rows, rng: torch.Generator) -> Variety | None:
        ours, theirs = (self.joint[rows[:, None], rows] for rows in (target, held))
        found = variety(ours, theirs, rng=rng, count=HALVES)
        if found is None:
            return None
        distance, vendi = (interval(one[0], one[1:]) for one in found)
        return Variety(distance=distance, vendi=vendi)

    def _fidelity(self, target: Rows, held: Rows, rng: torch.Generator) -> Fidelity | None:
        if len(target) < 2:
            return None
        both = torch.cat([target, held])

        def p_value(name: str, distances: Float[Tensor, "N N"]) -> float:
            among, key = distances[both[:, None], both], derive(rng, name)
            return energy_test(among, len(target), rng=key, count=PERMUTATIONS)[1]

        return Fidelity(
            outputs=p_value("outputs", self.outputs), weights=p_value("weights", self.apart)
        )

    def _span_residual(self, target: Rows) -> float | None:
        found = span_residual(self.weights[target], self.weights[self.rows["original"]])
        return None if found is None else float(found.quantile(0.5))


def _kinds(populations: Sequence[Population]) -> dict[str, str]:
    """Return what the parts of a mixture are made of, by the population's key."""
    kinds = {"original": "copies", "reference": "new"}
    for one in populations:
        control = one.origin.control
        if control is not None and (kind := declared.part_of_mixtures(control)):
            kinds[one.key] = kind
    return kinds


def _distances(
    points: Float[Tensor, "N P"], held: Rows, among: Rows, alone: Sequence[Rows]
) -> Float[Tensor, "N N"]:
    """Return the Euclidean distances between rows, through products of rows minus the mean of the reference's.

    The mean of all would round away the others beside a model that is very far.

    Args:
        points: a row for every model.
        held: the reference's models.
        among: models whose distances to all others are wanted.
        alone: populations of which only the distances within are wanted besides; between them stands NaN.
    """
    rows = points.double() - points[held].double().mean(0)
    distances = rows.new_full((len(rows), len(rows)), torch.nan)
    distances[:, among] = _apart(rows, rows[among])
    distances[among] = distances[:, among].T
    for own in alone:
        distances[own[:, None], own] = _apart(rows[own], rows[own])
    return distances


def _apart(one: Float[Tensor, "N P"], other: Float[Tensor, "M P"]) -> Float[Tensor, "N M"]:
    return torch.cdist(one, other, compute_mode="use_mm_for_euclid_dist")


def _median(distances: Float[Tensor, "m m"]) -> float:
    """Return the median distance between different models."""
    above = torch.triu_indices(len(distances), len(distances), 1)
    return float(distances[above[0], above[1]].median())
