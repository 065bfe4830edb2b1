"""Known-answer trials: verdicts of the pipeline on planted generators whose verdict is known."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Self

import torch
from jaxtyping import Float, Shaped
from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor

from bench.contract import Control, Generator, Scorer, Task
from bench.contract.zoo import Zoo
from bench.errors import BadRequest
from bench.judge import compare
from bench.judge.population import GENERATED, ORIGINAL, Origin, Population
from bench.records.request import Request
from bench.runs import known
from bench.runs.foreign import check_vectors
from bench.runs.pipeline import Run, make_generator
from bench.system.progress import say, track
from bench.system.randomness import derive, generator

VERDICTS = ("broken", "copies", "averages", "novel")
ORACLE = "oracle"
WANTED = 0.90  # at least this share of oracles is to be called novel
ALLOWED = 0.05  # at most this share of anything else
RUNS = 8  # stretches of independent runs, each longer than the one before, that a trajectory's oracles are drawn from
ZOO_TRIALS = 10  # trials that share one trajectory


@dataclasses.dataclass
class Mixture(Generator):
    """A share of new models among those of another generator.

    Attributes:
        new: really trained models that are not in the zoo.
        rest: what makes the others; None where all are new.
        share: of new models.
    """

    new: Float[Tensor, "M D"]
    rest: Generator | None = None
    share: float = 1.0

    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Fit the other generator, if there is one."""
        if self.rest is not None:
            self.rest.fit(zoo, rng=rng)
        return self

    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Return new models, drawn without replacement, followed by samples of the other generator."""
        count = round(self.share * n)
        new = self.new[torch.randperm(len(self.new), generator=rng)[:count]]
        return torch.cat([new, self.rest.sample(n - count, rng=rng)]) if self.rest else new


@dataclasses.dataclass(frozen=True)
class Pool:
    """Checkpoints of one base, scored once.

    Attributes:
        zoo: the checkpoints that zoos are drawn from.
        held: really trained models that never enter a zoo; empty where the zoo's own rows are independent runs, and
            those that were not drawn serve.
        val, compared: validation scores and wrong units (or features) of the zoo's rows, then of ``held``.
    """

    zoo: Zoo
    held: Float[Tensor, "H D"]
    val: Float[Tensor, " P"]
    compared: Shaped[Tensor, "P M"]

    def draw(self, k: int, rng: torch.Generator) -> tuple[Zoo, Float[Tensor, "m D"]]:
        """Return a zoo of k checkpoints, and trained models that are not in it."""
        if len(self.held):
            return self.zoo.head(k), self.held
        order = torch.randperm(len(self.zoo), generator=rng)
        drawn = dataclasses.replace(self.zoo, vectors=self.zoo.vectors[order[:k]], curve=())
        return drawn, self.zoo.vectors[order[k:]]

    def populations(
        self,
        score: Scorer,
        vectors: Mapping[str, Float[Tensor, "N D"]],
        origins: Mapping[str, Origin],
    ) -> dict[str, Population]:
        """Return the validation scores of several groups of models; rows of the pool are not scored again."""
        val, compared = self.scores(score, torch.cat(list(vectors.values())))
        found, start = {}, 0
        for name, rows in vectors.items():
            own = slice(start, start := start + len(rows))
            right_or_wrong = compared.dtype == torch.bool
            wrong, features = (compared[own], None) if right_or_wrong else (None, compared[own])
            found[name] = Population(origins[name], val[own], wrong, features)
        return found

    def scores(
        self, score: Scorer, vectors: Float[Tensor, "N D"]
    ) -> tuple[Float[Tensor, " N"], Shaped[Tensor, "N M"]]:
        """Return validation scores and wrong units (or features); rows of the pool are looked up, not scored."""
        places = known.places(vectors, torch.cat([self.zoo.vectors, self.held]))
        val, compared = self.val[places].clone(), self.compared[places].clone()
        if (places < 0).any():
            found = score(vectors[places < 0])
            val[places < 0], compared[places < 0] = found.scores.double(), found.compared
        return val, compared


@functools.cache
def _make(name: str, preset: str, device: str, **settings: int | float) -> Generator:
    return make_generator(name, settings, preset, device)


def planted(new: Float[Tensor, "M D"], preset: str, device: str) -> dict[str, Generator]:
    """Return generators whose verdict is known; all but the oracle must not be called novel."""

    def make(name: str, **settings: int | float) -> Generator:
        return _make(name, preset, device, **settings)

    noisy = {
        f"copies + noise {amplitude:g}": make("noise", amplitude=amplitude)
        for amplitude in (0.01, 0.05, 0.2, 0.5, 2.0)
    }
    averages = {
        f"average of {members}": make("interpolation", members=members) for members in (2, 4, 16)
    }
    return {
        "copies": make("copy"),
        **noisy,
        **averages,
        "average of all": make("average"),
        "gaussian": make("gaussian"),
        "90 % copies, 10 % new": Mixture(new, make("copy"), 0.1),
        "90 % copies + noise 0.05, 10 % new": Mixture(new, make("noise", amplitude=0.05), 0.1),
        "random weights": make("shuffled"),
        ORACLE: Mixture(new),
    }


def controls(run: Run, zoo: Zoo) -> dict[Control, tuple[Generator, int]]:
    """Return the pipeline's controls that need no training data, with its numbers of models."""
    return {
        control: (maker, count) for control, maker, count in run.controls(zoo) if not maker.needs
    }


def trial(run: Run, pool: Pool, rng: torch.Generator) -> dict[str, str]:
    """Return the verdict on every planted generator, for one drawn zoo."""
    request = run.request
    zoo, new = pool.draw(request.k, derive(rng, "zoo"))
    makers = {
        name: (maker, request.samples)
        for name, maker in planted(new, request.preset, run.device).items()
    }
    makers["average of all"] = (makers["average of all"][0], 1)
    vectors = {"original": zoo.vectors}
    origins = {"original": ORIGINAL}
    for name, (maker, count) in makers.items():
        at = f"planted {name}"
        vectors[at] = _sampled(maker, zoo, count, name, derive(rng, "planted", name))
        origins[at] = GENERATED
    for control, (maker, count) in controls(run, zoo).items():
        at = f"control {control}"
        # As in the pipeline, one seed for all amplitudes of the noise control.
        key = derive(rng, "control", str(dataclasses.replace(control, amplitude=None)))
        seen = run.aligned(zoo) if control.aligned else zoo
        vectors[at] = _sampled(maker, seen, count, str(control), key)
        origins[at] = Origin.of(control)
    scored = pool.populations(run.scorer(pool.zoo, "val"), vectors, origins)
    baselines = compare.Baselines.of(
        list(scored.values()), run.task.metric, derive(rng, "controls")
    )
    verdicts = {}
    for name in makers:
        at = f"planted {name}"
        found = compare.assess(baselines, scored[at], vectors[at], zoo.vectors, derive(rng, at))
        verdicts[name] = str(found.word)
    return verdicts


def _sampled(
    maker: Generator, zoo: Zoo, count: int, name: str, rng: torch.Generator
) -> Float[Tensor, "n D"]:
    """Fit a generator and sample from it."""
    maker.fit(zoo, rng=derive(rng, "fit"))
    vectors = maker.sample(count, rng=derive(rng, "sample"))
    check_vectors(vectors, count, zoo, name)
    return vectors


def pools(run: Run, trials: int, size: int) -> Iterator[tuple[Pool, range]]:
    """Yield pools of checkpoints, each with the numbers of the trials that draw from it.

    Where checkpoints are independent runs, one pool of ``size`` serves all trials: a zoo is k of them at random, an
    oracle's models are others. Checkpoints of a trajectory are steps of one run; there every ``ZOO_TRIALS`` trials have
    a zoo of their own, and the oracle's models are ends of other runs from the same base, on batches of their own.
    """
    if run.task.identity().get("track") != "trajectory":
        yield scored_pool(run, dataclasses.replace(run.request, k=size), 0), range(trials)
        return
    for number, first in enumerate(range(0, trials, ZOO_TRIALS)):
        request = dataclasses.replace(
            run.request, zoo_seed=(run.request.zoo_seed or 0) + 1000 * number
        )
        yield (
            scored_pool(run, request, size - request.k),
            range(first, min(first + ZOO_TRIALS, trials)),
        )


def scored_pool(run: Run, request: Request, held: int) -> Pool:
    """Collect a pool (from the store where it is there), and ``held`` models of independent runs beside it."""
    zoo, _ = Run(request).zoo()
    vectors = zoo.vectors[:0]
    if held:
        say(f"train {held} independent runs from the same base")
        vectors = independent(run.task, zoo, held, generator(request.zoo_seed or 0, "held"))
    found = run.scorer(zoo, "val")(torch.cat([zoo.vectors, vectors]))
    return Pool(zoo, vectors, found.scores.double(), found.compared)


def independent(task: Task, zoo: Zoo, count: int, rng: torch.Generator) -> Float[Tensor, "n D"]:
    """Train models from the zoo's first checkpoint on other batches, for ``RUNS`` different numbers of steps."""
    every = int(task.identity().get("every", 1))
    each = -(-count // RUNS)
    start = zoo.vectors[:1].expand(each, -1)
    ends = [len(zoo) * every * (part + 1) // RUNS for part in range(RUNS)]
    parts = [
        task.finetune(zoo, start, steps=max(1, steps), rng=derive(rng, steps))
        for steps in track(ends, "independent runs")
    ]
    return torch.cat(parts)[:count]


def calibrate(request: Request, trials: int, size: int) -> dict[str, Counter[str]]:
    """Count the verdicts on each planted generator over all trials.

    Args:
        request: the task, k, samples and seeds; its generator is not used.
        trials: how many zoos are drawn.
        size: checkpoints in the pool; see ``pools``.

    Raises:
        BadRequest: no trial, or a pool with too few checkpoints for a zoo and an oracle.
    """
    if trials < 1:
        raise BadRequest(f"trials is {trials}, expected at least 1")
    if size < request.k + request.samples:
        raise BadRequest(
            f"the pool has {size} checkpoints, expected k + samples = {request.k + request.samples} or more"
        )
    run = Run(request)
    table: dict[str, Counter[str]] = {}
    for pool, numbers in pools(run, trials, size):
        for number in track(numbers, "trials"):
            for name, word in trial(run, pool, generator(request.seed, "trial", number)).items():
                table.setdefault(name, Counter())[word] += 1
    return table


def share(table: Mapping[str, Counter[str]], name: str) -> tuple[float, float, float]:
    """Return the share of trials that call a generator novel, with its Clopper-Pearson 95 % interval."""
    counts = table[name]
    found = binomtest(counts["novel"], counts.total())
    low, high = found.proportion_ci(method="exact")
    return float(found.statistic), float(low), float(high)


def render(table: Mapping[str, Counter[str]]) -> Table:
    """Return the confusion table, with a row per planted generator and a column per verdict."""
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
    """Say in one line whether the wanted rates were reached."""
    worst = max((name for name in table if name != ORACLE), key=lambda name: share(table, name)[0])
    oracle, most = share(table, ORACLE)[0], share(table, worst)[0]
    reached = "reached" if oracle >= WANTED and most <= ALLOWED else "not reached"
    return (
        f"{reached}: the oracle is called novel in {100 * oracle:.1f} % of trials (wanted: at least "
        f"{100 * WANTED:.0f} %), '{worst}' in {100 * most:.1f} %, most of all others (at most {100 * ALLOWED:.0f} %)"
    )
