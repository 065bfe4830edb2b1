"""Known-answer trials: planted generators judged as any other, and how often each word of the verdict falls.

Zoos are the unit: every trial collects a zoo of its own, its reference, and trained models that neither saw.
"""

import dataclasses
import functools
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float
from pydantic import TypeAdapter
from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor

from bench import declared
from bench.contract.zoo import Zoo
from bench.errors import BadRequest
from bench.judge import composition
from bench.judge.align import (
    Places,
    found_groups,
    permute,
    regrouped,
    rescale,
    scalable,
    scales,
    unit_count,
)
from bench.judge.population import ORIGINAL, REFERENCE, Origin, Population
from bench.records import verdict
from bench.records.fields import Verdict
from bench.records.request import Request
from bench.records.rule1 import Means
from bench.runs.pipeline import Run
from bench.runs.prepared import make_generator
from bench.runs.verify import code_hash
from bench.system import store
from bench.system.progress import say, track
from bench.system.randomness import derive, generator

VERDICTS = get_args(Verdict)
_WORDS = TypeAdapter(dict[str, str])  # by planted generator
ORACLE = "trained, held out"
LONGER = "longer training"  # the zoo's own run goes on: really trained, and of another length
MIXED = "10 % copies, 90 % new"  # mostly new
NEW = (ORACLE, LONGER, MIXED)  # planted models that may be called novel
WANTED = 0.90  # at least this share of oracles is to be called novel or undecided
ALLOWED = 0.05  # at most this share of anything trivial
Vectors = Float[Tensor, "n D"]


def planted(run: Run, zoo: Zoo, held: Vectors, rng: torch.Generator) -> dict[str, Vectors]:
    """Make the models of every planted generator.

    Args:
        run: the request that zoos are collected by.
        zoo: the checkpoints.
        held: trained models that are neither in the zoo nor in the reference.
        rng: the source of every random draw.
    """
    count = run.request.samples

    def made(name: str, seen: Zoo = zoo, **settings: int | float) -> Vectors:
        maker = make_generator(name, settings, run.request.preset, run.device)
        key = derive(rng, name, *map(str, settings.items()), seen.hash)
        return maker.fit(seen, rng=derive(key, "fit")).sample(count, rng=derive(key, "sample"))

    copies = made("copy")
    half, tenth = count // 2, count // 10
    models = {"copies": copies}
    models |= {
        f"copies + noise {a:g}": made("noise", amplitude=a) for a in (0.01, 0.05, 0.2, 0.5, 2.0)
    }
    models |= {f"average of {n}": made("interpolation", members=n) for n in (2, 4, 16)}
    models["average of all"] = made("average")[:1]
    for name in ("gaussian", "full_gaussian", "low_rank_gaussian", "step", "shuffled"):
        models[name] = made(name)
    models["noise in the span"] = in_span(zoo, copies, derive(rng, "span"))
    models["90 % copies + noise 0.05, 10 % new"] = torch.cat(
        [made("noise", amplitude=0.05)[tenth:], held[:tenth]]
    )
    models["90 % copies, 10 % new"] = torch.cat([copies[tenth:], held[:tenth]])
    models["50 % copies, 50 % new"] = torch.cat([copies[half:], held[:half]])
    models[MIXED] = torch.cat([copies[:tenth], held[tenth:]])
    if found_groups(zoo):
        models["permuted copies"] = permuted(zoo, copies, derive(rng, "permutation"))
        if scalable(zoo.layout):
            models["rescaled copies"] = rescaled(zoo, copies, derive(rng, "scale"))
        aligned = run.aligned(zoo)
        for n in (2, 16):
            models[f"aligned average of {n}"] = made("interpolation", aligned, members=n)
    if (longer := going_on(run, zoo, derive(rng, "longer"))) is not None:
        models[LONGER] = longer
    return models | {ORACLE: held}


def in_span(zoo: Zoo, models: Vectors, rng: torch.Generator) -> Vectors:
    """Add noise within the span of the checkpoints: half their own spread, in random directions."""
    centred = zoo.vectors.double() - zoo.vectors.double().mean(0)
    draws = torch.randn(len(models), len(zoo), generator=rng, dtype=torch.float64)
    moved: Vectors = (models + 0.5 * draws @ centred / math.sqrt(len(zoo))).float()
    return moved


def permuted(zoo: Zoo, models: Vectors, rng: torch.Generator) -> Vectors:
    """Put the hidden units of every model in a random order, which leaves what it does as it is."""

    def change(tensors: dict[str, Tensor], places: Places) -> dict[str, Tensor]:
        units = unit_count(tensors, places)
        orders = [torch.randperm(units, generator=rng) for _ in models]
        return permute(tensors, places, torch.stack(orders))

    return regrouped(models, zoo.layout, found_groups(zoo) or {}, change)


def rescaled(zoo: Zoo, models: Vectors, rng: torch.Generator) -> Vectors:
    """Scale every hidden unit by up to e, and back where it is read, which leaves what a ReLU network does as it is."""

    def change(tensors: dict[str, Tensor], places: Places) -> dict[str, Tensor]:
        movable, usual = scales(tensors, places)
        return rescale(tensors, movable, (2 * torch.rand(usual.shape, generator=rng) - 1).exp())

    return regrouped(models, zoo.layout, found_groups(zoo) or {}, change)


def going_on(run: Run, zoo: Zoo, rng: torch.Generator) -> Vectors | None:
    """Train a trajectory's last checkpoints on for half the length of the zoo; None for other zoos."""
    identity = run.task.identity()
    if identity.get("track") != "trajectory":
        return None
    steps = max(1, len(zoo) * int(identity.get("every", 1)) // 2)
    count = run.request.samples
    return run.task.finetune(zoo, zoo.vectors[-count:], steps=steps, rng=rng)


def trial(request: Request) -> dict[str, str]:
    """Collect one zoo, judge every planted generator on it; return the word of each.

    Raises:
        BadRequest: the task has no reference.
    """
    run = Run(request)
    zoo, _ = run.zoo()
    reference = run.reference(zoo)
    work = store.home() / "references" / f"{zoo.hash}-{request.samples}.held"
    held = run.task.reference(
        zoo, request.samples, rng=generator(0, zoo.hash, "held out"), work=work
    )
    shutil.rmtree(work, ignore_errors=True)
    if reference is None or held is None:
        raise BadRequest(f"'{request.task}' trains no reference: there is nothing to calibrate by")
    rng = generator(request.seed, "trial", zoo.hash)
    models = {ORIGINAL: zoo.vectors, REFERENCE: reference.vectors}
    for name, vectors in planted(run, zoo, held, rng).items():
        models[Origin(name, "generated")] = vectors
    for control, maker, count in run.controls(zoo):
        if declared.made_of(control):
            models[Origin.of(control)] = run.control_models(control, maker, count, zoo)
    return words(scored(run, zoo, models), run, derive(rng, "judge"))


def scored(run: Run, zoo: Zoo, models: Mapping[Origin, Vectors]) -> list[Population]:
    """Score models on validation, all at once."""
    vectors = torch.cat(list(models.values()))
    found = run.scorer(zoo, "val")(vectors)
    everything = Population(
        ORIGINAL, found.scores.double(), found.wrong, found.features, outputs=found.outputs
    )
    weights = run.weights(zoo, vectors, everything)
    everything = dataclasses.replace(everything, weights=weights)
    rows = torch.arange(len(everything)).split([len(vectors) for vectors in models.values()])
    return [
        dataclasses.replace(everything.rows(own), origin=origin)
        for origin, own in zip(models, rows, strict=True)
    ]


def words(populations: Sequence[Population], run: Run, rng: torch.Generator) -> dict[str, str]:
    """Return the word of every population of role "generated", by its name."""
    by_key = {one.key: one for one in populations}
    against = composition.against_reference(populations, run.task.metric, rng)
    noisiest = max(populations, key=lambda one: one.origin.amplitude or 0.0)
    found = {}
    for one in populations:
        if one.origin.role == "generated":
            lost = Means(one.mean, by_key["original"].mean, noisiest.mean).lost
            evidence = composition.evidence(against, one.key, lost=lost, models=run.request.samples)
            found[one.key] = str(verdict.word(evidence))
    return found


def trials(request: Request, count: int) -> Iterator[dict[str, str]]:
    """Yield the words of every trial; finished ones are kept in the store."""
    for number in track(range(count), "trials"):
        seeded = dataclasses.replace(request, zoo_seed=(request.zoo_seed or 0) + number)
        path = store.home() / "trials" / f"{_digest(seeded)}.json"
        make = functools.partial(trial, seeded)
        yield store.stage(path, _load, make, _save, force=request.force)


def _digest(request: Request) -> str:
    run = Run(request)
    return store.digest([request.asked.canonical, run.task.identity(), run.task_code, code_hash()])


def _load(path: Path) -> dict[str, str]:
    return _WORDS.validate_json(path.read_bytes())


def _save(found: dict[str, str], path: Path) -> None:
    store.write_text(path, json.dumps(found))


def calibrate(request: Request, count: int) -> dict[str, Counter[str]]:
    """Count how often each planted generator got each word.

    Args:
        request: the task, k, samples and seeds; its generator is not used. Trial i has the zoo of seed zoo_seed + i.
        count: number of trials.

    Raises:
        BadRequest: no trial, or a task without a reference.
    """
    if count < 1:
        raise BadRequest(f"trials is {count}, expected at least 1")
    say(f"{count} zoos")
    table: dict[str, Counter[str]] = {}
    for found in trials(request, count):
        for name, word in found.items():
            table.setdefault(name, Counter())[word] += 1
    return table


def share(table: Mapping[str, Counter[str]], name: str) -> tuple[float, float, float]:
    """Return how often a planted generator is called novel, with the Clopper-Pearson 95 % interval."""
    counts = table[name]
    test = binomtest(counts["novel"], counts.total())
    low, high = test.proportion_ci(method="exact")
    return float(test.statistic), float(low), float(high)


def render(table: Mapping[str, Counter[str]]) -> Table:
    """Return the confusion table: a row a planted generator, a column a word."""
    shown = Table(header_style="bold", pad_edge=False, box=None)
    shown.add_column("planted", no_wrap=True)
    for column in (*VERDICTS, "called novel", "95 %"):
        shown.add_column(column, justify="right", no_wrap=True)
    for name, counts in table.items():
        value, low, high = share(table, name)
        cells = [str(counts[word]) for word in VERDICTS]
        shown.add_row(name, *cells, f"{100 * value:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}")
    return shown


def conclusion(table: Mapping[str, Counter[str]]) -> str:
    """Say in a sentence whether the wanted rates were reached."""
    worst = max((name for name in table if name not in NEW), key=lambda name: share(table, name)[0])
    oracle, most = share(table, ORACLE)[0], share(table, worst)[0]
    undecided = table[ORACLE]["undecided"] / table[ORACLE].total()
    reached = "reached" if oracle + undecided >= WANTED and most <= ALLOWED else "not reached"
    return (
        f"{reached}: held-out training is called novel in {100 * oracle:.1f} % of zoos and undecided in "
        f"{100 * undecided:.1f} % (wanted: together at least {100 * WANTED:.0f} %), '{worst}' is called novel in "
        f"{100 * most:.1f} %, most of all trivial kinds (at most {100 * ALLOWED:.0f} %)"
    )
