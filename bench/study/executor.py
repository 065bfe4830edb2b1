"""The interface of executors: their settings, their events, and the outcomes of stages."""

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from bench.study.graph import Node

State = Literal["done", "cached", "failed", "skipped"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a stage.

    Attributes:
        state: done (it made something), cached (everything existed), failed, or skipped (a stage it needs failed).
        seconds: wall time.
        written: bytes added to the store.
        error: the reason of a failure, in one line.
        files: a record and its side file, by their paths below the results folder.
        log: the stage's output, if it is in no file of this machine yet.
    """

    state: State
    seconds: float = 0.0
    written: int = 0
    error: str = ""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    log: str = ""

    @property
    def fine(self) -> bool:
        """Whether stages that need this one can begin."""
        return self.state in ("done", "cached")


@dataclasses.dataclass(frozen=True)
class Started:
    """The event that a stage has begun, on the machine ``where``."""

    node: Node
    where: str = ""


@dataclasses.dataclass(frozen=True)
class Finished:
    """The event that a stage has ended."""

    node: Node
    outcome: Outcome


Event = Started | Finished


@dataclasses.dataclass(frozen=True)
class Setting:
    """Settings of an executor.

    Attributes:
        environment: environment variables of the stages' processes, which name the store.
        logs: folder of the stages' output, one file ``<id>.log`` each.
        modules: modules that stages import, to be imported ahead where that saves time.
        retries: how often a stage is restarted after its process died.
        address: of a Ray cluster; None starts one on this machine.
    """

    environment: Mapping[str, str]
    logs: Path
    modules: Sequence[str] = ()
    retries: int = 2
    address: str | None = None

    def log(self, node: Node) -> Path:
        """Return the file of a stage's output."""
        return self.logs / f"{node.id}.log"


@dataclasses.dataclass(frozen=True)
class Executor:
    """Carries out stages.

    Attributes:
        gpus: number of GPUs.
        execute: carries out stages, each after the stages that it needs, and yields events. A stage whose process dies
            is restarted; one that fails stops only the stages that need it. Closing the iterator stops running stages.
    """

    gpus: int
    execute: Callable[[Sequence[Node]], Generator[Event]]


def skipped(missing: Node) -> Outcome:
    """Return the outcome of a stage that is skipped because a stage it needs failed."""
    return Outcome("skipped", error=f"needs '{missing.label}', which was not made")


def missing(node: Node, nodes: Mapping[str, Node], ended: Mapping[str, Outcome]) -> Node | None:
    """Return the first failed or skipped stage among those that ``node`` needs; None if there is none."""
    names = (name for name in node.after if name in ended and not ended[name].fine)
    return next((nodes[name] for name in names), None)
