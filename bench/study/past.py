"""Estimates of the time and disk space of stages, from earlier measurements or else from rules of thumb."""

import contextlib
import dataclasses
import functools
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from bench import plugins
from bench.contract import registry
from bench.contract.cost import network_cost
from bench.contract.declarations import DataSet, Shape
from bench.records import protocol
from bench.records.fields import Seconds
from bench.records.request import Request
from bench.study.executor import Outcome
from bench.study.graph import Node
from bench.system.data import Json
from bench.system.store import home

if TYPE_CHECKING:
    pass

# Rules of thumb, for stages without measurements.
SPEED = {"cpu": 120.0, "cuda": 20_000.0}  # GFLOP/s, of a core and of a GPU
ANY = Shape(3, 32, 10)  # of the network of a task that declares none
OTHER = DataSet(  # stands for a data set that is not registered
    name="", target="", about="", form="", classes=10, channels=3, size=224, train=10_000, val=2_000
)  # fmt: skip
UNSHARED = 0.1  # share of a network's operations that differ between candidates, where some layers are generated
FIT = {  # seconds of fitting p-diff, by preset and device
    ("quick", "cpu"): 10.0, ("quick", "cuda"): 10.0, ("paper", "cpu"): 7200.0, ("paper", "cuda"): 600.0,
    ("official", "cpu"): 600.0, ("official", "cuda"): 60.0,
}  # fmt: skip
FITTED = {
    "pdiff": 1.0,
    "vae": 0.4,
    "flow": 1.0,
    "rpg": 2.0,
    "weight_transformer": 3.0,
    "sane": 4.0,
}  # share of FIT by generator; other generators take no time
START = 2.0  # seconds that every stage takes to start its process and load data


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The estimated time and disk space of a stage.

    Attributes:
        seconds, written: wall time, and bytes added to the store.
        measured: whether the estimate is based on measurements rather than a rule of thumb.
    """

    seconds: float
    written: float
    measured: bool


class _Measured(BaseModel):
    """A line of the file of measurements: what stages it holds for, and their seconds and bytes over their size."""

    model_config = ConfigDict(allow_inf_nan=False)

    like: str
    seconds: Seconds
    written: Seconds


class Past:
    """Measurements of the stages of earlier studies in this store."""

    def __init__(self) -> None:
        self._path = home() / "measured.jsonl"
        self._known: dict[str, list[tuple[float, float]]] = {}
        for line in _lines(self._path):
            self._learn(line.like, line.seconds, line.written)

    def keep(self, node: Node, outcome: Outcome) -> None:
        """Record the time and disk space of a stage that made something."""
        if outcome.state == "done":
            size = _size(node)
            seconds, written = outcome.seconds / size, outcome.written / size
            self._learn(_like(node), seconds, written)
            line = {"like": _like(node), "seconds": seconds, "written": written}
            with contextlib.suppress(OSError):  # a full disk is reported by the stages
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open(
                    "a", encoding="utf-8"
                ) as file:  # one write per line: studies share the file
                    file.write(json.dumps(line) + "\n")

    def _learn(self, like: str, seconds: float, written: float) -> None:
        self._known.setdefault(like, []).append((seconds, written))

    def estimate(self, node: Node) -> Estimate:
        """Estimate a stage by the median of similar stages, or else by a rule of thumb."""
        known = self._known.get(_like(node))
        if not known:
            return _rule(node)
        seconds, written = (statistics.median(column) for column in zip(*known, strict=True))
        return Estimate(seconds * _size(node), written * _size(node), measured=True)


def _lines(path: Path) -> "Iterable[_Measured]":
    """Yield the valid JSON lines of a file; a line that was cut short is ignored."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found = _Measured.model_validate_json(line)
        except ValidationError:
            continue
        yield found


def _like(node: Node) -> str:
    """Return a key that is equal for stages of equal time and disk space, relative to their size."""
    request = node.request
    parts: list[Json] = [
        node.kind,
        len(node.after),
        request.task,
        request.preset,
        request.device,
        node.needs.cpus,
    ]
    parts.append(sorted((n, str(value)) for n, value in request.task_settings.items()))
    if node.kind in ("fit", "record"):
        parts.append(request.generator)
    if node.kind == "fit":
        parts.append(sorted((n, str(value)) for n, value in request.generator_settings.items()))
    return json.dumps(parts)


def _size(node: Node) -> float:
    """Return the size of a stage, to which its time is proportional."""
    request = node.request
    if node.kind == "collect":
        seeds = request.task_settings.get("track") == "seeds"
        # Without seeds, training the base takes most of the time.
        return float(request.collected or request.k) if seeds else 1.0
    if node.kind == "controls":
        return float(_models(request))
    return float(request.samples) if node.kind == "record" else 1.0


def _models(request: Request) -> int:
    """Count originals and control models; copies are not scored again, and twins hardly change the number."""
    counts = protocol.controls(protocol.PROTOCOL, request.samples, alignable=False)
    return request.k + sum(count for control, count in counts.items() if control.name != "copy")


def _rule(node: Node) -> Estimate:
    """Estimate the time and disk space of a stage by a rule of thumb."""
    request = node.request
    settings = json.dumps(request.task_settings, default=str)
    cost = _cost(request.task, request.preset, settings, request.device, node.needs.cpus)
    if node.kind == "base":
        return Estimate(START + cost.training, cost.base / 2, measured=False)
    if node.kind == "collect":
        k = request.collected or request.k
        runs = k if cost.seeds else 0 if node.after else 1
        return Estimate(START + runs * cost.training, cost.base + k * cost.vector, measured=False)
    if node.kind == "fit":
        usual = FIT["paper", request.device]  # of other packages' presets too
        seconds = FIT.get((request.preset, request.device), usual) * FITTED.get(
            request.generator, 0.0
        )
        return Estimate(START + seconds, request.samples * cost.vector, measured=False)
    models = _models(request) if node.kind == "controls" else request.samples
    made = cost.vector if node.kind == "controls" else 0.0
    return Estimate(START + models * cost.scoring, models * (made + cost.outcomes), measured=False)


@dataclasses.dataclass(frozen=True)
class _Cost:
    """Seconds to train one network and to score one model; bytes of a base, a vector, and a model's outcomes."""

    training: float
    scoring: float
    base: float
    vector: float
    outcomes: float
    seeds: bool


@functools.lru_cache
def _cost(name: str, preset: str, settings: str, device: str, cores: int) -> _Cost:
    task = plugins.load_task(name, preset, json.loads(settings))
    get = functools.partial(getattr, task)
    data_set = registry.data_sets().get(get("dataset", ""), OTHER)
    train, val = (min(n, get("limit", None) or n) for n in (data_set.train, data_set.val))
    network = network_cost(get("arch", ""), get("declared_shape", ANY))
    speed = SPEED["cuda"] if device == "cuda" else SPEED["cpu"] * cores
    whole = get("layers", "") == "all"
    scored = min(train, get("train_size", None) or train)
    scored += min(val, get("val_size", None) or val)
    if get("fid_images", None):  # the task draws its own images, in many steps
        scored = 2 * get("fid_images") * get("steps")
    return _Cost(
        training=3 * network.gflop * train * get("epochs", 10) * get("passes", 1) / speed,
        scoring=scored * network.gflop * (1.0 if whole else UNSHARED) / speed,
        base=8.0 * network.parameters,
        vector=4.0 * network.parameters if whole else 8e3,
        outcomes=float(val),
        seeds=get("track", "") == "seeds",
    )


def longest(nodes: Iterable[Node], seconds: Mapping[str, float]) -> float:
    """Return the seconds of the longest chain of dependent stages."""
    ends: dict[str, float] = {}
    for node in nodes:
        before = max((ends[name] for name in node.after), default=0.0)
        ends[node.id] = before + seconds[node.id]
    return max(ends.values(), default=0.0)
