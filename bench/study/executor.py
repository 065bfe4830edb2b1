"""What the two executors have in common: what they are told, what they tell, and how a stage ends."""

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from bench.study.graph import Node

State = Literal["done", "cached", "failed", "skipped"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a stage ended.

    Attributes:
        state: done (it made something), cached (all was there), failed, or skipped (what it needs was not made).
        seconds: wall time.
        written: bytes that it added to the store.
        error: one line, of what failed.
        files: a record and its side file, by their paths below the results folder.
        log: what the stage printed, where that is in no file of this machine yet.
    """

    state: State
    seconds: float = 0.0
    written: int = 0
    error: str = ""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    log: str = ""

    @property
    def fine(self) -> bool:
        """Whether what needs this stage can go on."""
        return self.state in ("done", "cached")


@dataclasses.dataclass(frozen=True)
class Started:
    """A stage begins, on some machine."""

    node: Node
    where: str = ""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A stage has ended."""

    node: Node
    outcome: Outcome


Event = Started | Finished


@dataclasses.dataclass(frozen=True)
class Setting:
    """What an executor is told.

    Attributes:
        environment: where the store is; variables of the processes that do the stages.
        logs: folder of what the stages print, ``<id>.log`` each.
        modules: what the stages import, to be imported ahead where that saves time.
        retries: how often a stage is begun again after its process died.
        address: of a Ray cluster; None starts one here.
    """

    environment: Mapping[str, str]
    logs: Path
    modules: Sequence[str] = ()
    retries: int = 2
    address: str | None = None

    def log(self, node: Node) -> Path:
        """Return the file of what a stage prints."""
        return self.logs / f"{node.id}.log"


@dataclasses.dataclass(frozen=True)
class Executor:
    """Carries out stages.

    Attributes:
        gpus: how many GPUs it has.
        execute: does stages, each after those that it needs, and tells what happens. A stage whose process dies is
            begun again; one that fails stops only what needs it. Closing the iterator stops those that run.
    """

    gpus: int
    execute: Callable[[Sequence[Node]], Generator[Event]]


def skipped(missing: Node) -> Outcome:
    """Return the outcome of a stage that needs another one that was not made."""
    return Outcome("skipped", error=f"needs '{missing.label}', which was not made")


def missing(node: Node, nodes: Mapping[str, Node], ended: Mapping[str, Outcome]) -> Node | None:
    """Return the stage that this one needs and that was not made."""
    names = (name for name in node.after if name in ended and not ended[name].fine)
    return next((nodes[name] for name in names), None)
