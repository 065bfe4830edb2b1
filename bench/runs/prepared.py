"""What a request names, prepared: its device, its task and its generator, with their settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bench import plugins
from bench.contract import Context, Generator, Metric, Task, presets
from bench.errors import BadRequest
from bench.records.request import Request
from bench.records.values import plain, written
from bench.system import store


def load_task(request: Request, device: str) -> Task:
    """Return the request's task on a device, with the settings of preset, request and given zoo.

    Raises:
        BadRequest: no such task or setting, a setting that the zoo contradicts, or a data folder that is never read.
    """
    said = said_by_zoo(request, request.header.settings) if request.header else {}
    task = plugins.load_task(request.task, request.preset, {**said, **request.task_settings})
    if request.data_dir and task.embedded:
        raise BadRequest(
            f"the data of '{request.task}' come with the suite, no folder is read: leave --data-dir out"
        )
    return task.within(Context(device, request.data_dir, request.force))


def said_by_zoo(request: Request, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task's settings that a zoo's file records and the request does not set.

    Raises:
        BadRequest: the request sets another value.
    """
    cls = plugins.task_class(request.task)
    variant = plugins.task_variant(request.task).settings
    known = {"dataset": variant["dataset"]} if "dataset" in variant else {}
    asked = {**known, **request.task_settings, "kind": getattr(cls, "kind", None)}
    for name, value in asked.items():
        said = facts.get(name, value)
        if name == "pretrained" and value and Path(value).exists():
            value = store.file_hash(Path(value))
        if name not in cls.scoring and plain(said) != plain(value):
            raise BadRequest(
                f"the zoo {request.zoo} was collected with {name} {written(said)}, {written(value)} was asked for: "
                "leave that out, or collect another zoo"
            )
    return {name: value for name, value in cls.of_zoo(facts).items() if name not in asked}


def check_min_score(score: float | None, metric: Metric) -> None:
    """Check that a minimal score lies in the metric's range.

    Raises:
        BadRequest: it does not.
    """
    if score is None:
        return
    if metric.percent and not 0 <= score <= 1:
        hint = f": {score / 100:g} for {score:g} %" if 1 < score <= 100 else ""
        raise BadRequest(f"--min-score is {score:g}, {metric.name} is between 0 and 1{hint}")
    if score < 0:
        raise BadRequest(f"--min-score is {score:g}, {metric.name} is 0 or more")


def make_generator(name: str, settings: Mapping[str, Any], preset: str, device: str) -> Generator:
    """Return a generator on a device, with the hyperparameters of its preset and ``settings``, which override them."""
    cls = plugins.load_generator(name)
    values = {**cls.presets.get(preset, {}), **settings}
    made = plugins.construct(cls, values, f"hyperparameter of {name}")
    return made.within(Context(device))


def generator(request: Request, device: str) -> Generator:
    """Return the request's generator on a device, with the hyperparameters of preset and request.

    Raises:
        BadRequest: there is no such generator, preset or hyperparameter, or a value is refused.
    """
    presets.check(request.preset, plugins.load_generator(request.generator).presets)
    settings = request.generator_settings
    return make_generator(request.generator, settings, request.preset, device)


def choose_device(name: str) -> str:
    """Return the name of the device to compute on; "auto" chooses a GPU if there is one.

    Raises:
        BadRequest: the device is unknown, unsupported or missing.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name)
    except RuntimeError:
        raise BadRequest(f"unknown device '{name}': expected auto, cpu, cuda or cuda:N") from None
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise BadRequest(
            f"device '{name}' is not there ({torch.cuda.device_count()} CUDA devices seen): "
            "choose --device cpu"
        )
    if kind.type not in ("cpu", "cuda"):
        raise BadRequest(f"device '{name}' is not supported: expected auto, cpu, cuda or cuda:N")
    return name
