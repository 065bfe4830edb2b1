"""How long stages take and how much they write: what was measured before, or else rules of thumb."""

import contextlib
import dataclasses
import functools
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import plugins
from bench.records.request import Request
from bench.study.executor import Outcome
from bench.study.graph import Node
from bench.system.store import home

# Rules of thumb, where nothing was measured. Of an architecture: GFLOP for an image of 32 x 32 pixels, small stem,
# GFLOP for one of 224 x 224, and millions of parameters. Of a data set: images to train on, and their side.
ARCHITECTURES = {
    "mlp3": (0.0003, 0.015, 0.1), "convnet3": (0.008, 0.4, 0.05), "resnet18": (1.1, 3.6, 11),
    "resnet50": (2.6, 8.2, 25), "vit_tiny": (2.5, 2.5, 5.7), "vit_base": (35, 35, 86),
    "convnext_tiny": (9, 9, 29), "convnext_base": (31, 31, 89),
    "fasterrcnn_small": (0.02, 0.8, 0.5), "fcos_small": (0.02, 0.8, 0.5), "fcn_small": (0.02, 1.0, 0.3),
    "fasterrcnn_resnet50_fpn": (0.5, 21, 42), "fcos_resnet50_fpn": (0.5, 20, 32), "fcn_resnet50": (0.6, 28, 33),
    "ddpm8": (0.6, 30, 1), "ddpm32": (12, 600, 36),
}  # fmt: skip
DATA = {
    "digits": (1_000, 8), "mnist": (60_000, 28), "cifar10": (50_000, 32), "cifar100": (50_000, 32),
    "stl10": (5_000, 96), "flowers102": (1_020, 224), "pets": (3_680, 224), "food101": (75_750, 224),
    "imagenet": (1_281_167, 224), "shapes": (600, 80), "shapes-seg": (600, 80), "coco": (118_000, 800),
    "coco-voc": (118_000, 520),
}  # fmt: skip
OTHER = (20.0, 20.0, 40.0)  # of another architecture
SPEED = {"cpu": 120.0, "cuda": 20_000.0}  # GFLOP/s, of a core and of a GPU
OWN = 0.1  # of a network's work that candidates do not share, where a part of it is generated
FIT = {  # seconds, of p-diff
    ("quick", "cpu"): 10.0, ("quick", "cuda"): 10.0, ("paper", "cpu"): 7200.0, ("paper", "cuda"): 600.0,
}  # fmt: skip
FITTED = {"pdiff": 1.0, "vae": 0.4}  # of FIT; what is not learned takes no time
START = 2.0  # seconds of any stage: its process, the data


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a stage takes.

    Attributes:
        seconds, written: wall time, and bytes added to the store.
        measured: whether it follows from a measurement rather than a rule of thumb.
    """

    seconds: float
    written: float
    measured: bool


class Past:
    """What was measured in this store's studies."""

    def __init__(self) -> None:
        self._path = home() / "measured.jsonl"
        self._known: dict[str, list[tuple[float, float]]] = {}
        for line in _lines(self._path):
            self._learn(line["like"], line["seconds"], line["written"])

    def keep(self, node: Node, outcome: Outcome) -> None:
        """Write down what a stage took that made something."""
        if outcome.state == "done":
            size = _size(node)
            seconds, written = outcome.seconds / size, outcome.written / size
            self._learn(_like(node), seconds, written)
            line = {"like": _like(node), "seconds": seconds, "written": written}
            with contextlib.suppress(OSError):  # a full disk is the stages' to report
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open(
                    "a", encoding="utf-8"
                ) as file:  # a line at once: studies share it
                    file.write(json.dumps(line) + "\n")

    def _learn(self, like: str, seconds: float, written: float) -> None:
        self._known.setdefault(like, []).append((seconds, written))

    def estimate(self, node: Node) -> Estimate:
        """Return the median of stages like this one, or a rule of thumb."""
        known = self._known.get(_like(node))
        if not known:
            return _rule(node)
        seconds, written = (statistics.median(column) for column in zip(*known, strict=True))
        return Estimate(seconds * _size(node), written * _size(node), measured=True)


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    """Return the lines that can be read; one that a kill cut short counts for nothing."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield dict(json.loads(line))
        except ValueError:
            continue


def _like(node: Node) -> str:
    """Return the facts that stages share which take equally long, relative to their size."""
    request = node.request
    parts: list[Any] = [
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
    """Return the size of a stage, which its time grows with."""
    request = node.request
    if node.kind == "collect":
        seeds = request.task_settings.get("track") == "seeds"
        return float(request.collected or request.k) if seeds else 1.0  # else the base takes most
    if node.kind == "controls":
        return float(_models(request))
    return float(request.samples) if node.kind == "record" else 1.0


def _models(request: Request) -> int:
    """Count the models of originals and controls: interpolation, gaussian, a quarter each of finetune and 8 noises."""
    return request.k + request.samples * 17 // 4 + 2


def _rule(node: Node) -> Estimate:
    """Estimate seconds by a rule of thumb."""
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
        seconds = FIT[request.preset, request.device] * FITTED.get(request.generator, 0.0)
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
    images, side = DATA.get(get("dataset", ""), (10_000, 224))
    images = min(images, get("limit", None) or images)
    side = 224 if get("pretrained", None) and side < 224 else side
    small, large, millions = ARCHITECTURES.get(get("arch", ""), OTHER)
    work = small * (side / 32) ** 2 if side <= 64 else large * (side / 224) ** 2
    speed = SPEED["cuda"] if device == "cuda" else SPEED["cpu"] * cores
    whole = get("layers", "") == "all"
    scored = min(images, get("train_size", None) or images)
    scored += min(images // 5, get("val_size", None) or images)
    if get("fid_images", None):  # it draws its own, in many steps
        scored = 2 * get("fid_images") * get("steps")
    return _Cost(
        training=3 * work * images * get("epochs", 10) * get("passes", 1) / speed,
        scoring=scored * work * (1.0 if whole else OWN) / speed,
        base=8e6 * millions,
        vector=4e6 * millions if whole else 8e3,
        outcomes=images / 5,
        seeds=get("track", "") == "seeds",
    )


def longest(nodes: Iterable[Node], seconds: Mapping[str, float]) -> float:
    """Return the seconds of the longest chain of stages that need each other."""
    ends: dict[str, float] = {}
    for node in nodes:
        before = max((ends[name] for name in node.after), default=0.0)
        ends[node.id] = before + seconds[node.id]
    return max(ends.values(), default=0.0)
