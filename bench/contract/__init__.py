"""What plugins implement and are given: tasks, generators, evaluations, zoos. Nothing is imported before it is used."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.contract.context import Context as Context
    from bench.contract.control import Control as Control
    from bench.contract.declarations import Variant as Variant
    from bench.contract.evaluation import Evaluation as Evaluation
    from bench.contract.evaluation import Scorer as Scorer
    from bench.contract.generator import Generator as Generator
    from bench.contract.generator import Score as Score
    from bench.contract.generator import Train as Train
    from bench.contract.generator import check as check
    from bench.contract.metric import Compared as Compared
    from bench.contract.metric import Metric as Metric
    from bench.contract.task import Task as Task
    from bench.contract.zoo import Layout as Layout
    from bench.contract.zoo import Zoo as Zoo

_MODULES = {
    "Context": "context",
    "Control": "control",
    "Variant": "declarations",
    "Evaluation": "evaluation",
    "Scorer": "evaluation",
    "Generator": "generator",
    "Score": "generator",
    "Train": "generator",
    "check": "generator",
    "Compared": "metric",
    "Metric": "metric",
    "Task": "task",
    "Layout": "zoo",
    "Zoo": "zoo",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    """Import a name of the contract on its first use: several modules import torch, which takes seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module 'bench.contract' has no attribute '{name}'")
    return getattr(importlib.import_module(f"bench.contract.{_MODULES[name]}"), name)
