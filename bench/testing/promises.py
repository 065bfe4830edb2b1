"""Promises: functions that are named after a part of a plugin's contract and raise if the plugin breaks it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

from bench.contract.context import Plugin
from bench.errors import BenchError, printable
from bench.runs import foreign

S = TypeVar("S")
P = TypeVar("P", bound=Plugin)


class BrokenPromise(BenchError, AssertionError):
    """The error for a plugin that breaks its contract."""


def ensure(condition: bool, reason: str) -> None:
    """Raise ``BrokenPromise`` with the reason unless the condition holds."""
    if not condition:
        raise BrokenPromise(reason)


def derived(cls: type[object], contract: type[P]) -> type[P]:
    """Check that a class is derived from a contract, the first promise of every plugin; return the class.

    Args:
        cls: any class.
        contract: ``Generator`` or ``Task``.

    Raises:
        BrokenPromise: the class is no dataclass, is not derived from the contract, or lacks a method.
    """
    if not issubclass(cls, contract):
        raise BrokenPromise(
            f"{cls.__name__} is not derived from bench.contract.{contract.__name__}"
        )
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    ensure(not missing, f"{cls.__name__} has no {', '.join(missing)}")
    ensure("__dataclass_fields__" in vars(cls), f"{cls.__name__} is not decorated with @dataclass")
    return cls


def words(promise: Callable[[S], None]) -> str:
    """Return the promise in words: the name of its function."""
    return promise.__name__.replace("_", " ")


def check(promises: Iterable[Callable[[S], None]], subject: S, name: str) -> None:
    """Check a plugin's promises, one after another; later ones may rely on earlier ones.

    Args:
        promises: the promises.
        subject: the argument of every promise.
        name: the plugin's class, for the message.

    Raises:
        BrokenPromise: the first promise that is broken, and why, in one line.
    """
    for promise in promises:
        try:
            promise(subject)
        except BrokenPromise as error:
            raise BrokenPromise(f"{name} breaks '{words(promise)}': {error}") from error
        except Exception as error:  # whatever the plugin raises
            reason = printable(f"{type(error).__name__}: {error}")
            raise BrokenPromise(f"{name} breaks '{words(promise)}': {reason}") from error


# Parts of promises ---------------------------------------------------------------------------------------------------


def rng(seed: int = 0) -> torch.Generator:
    """Return a random generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def documented(cls: type[object]) -> bool:
    """Return whether a dataclass has a written docstring, rather than the one generated from its fields."""
    text = vars(cls).get("__doc__") or ""
    return bool(text.strip()) and not text.startswith(f"{cls.__name__}(")


@contextmanager
def untouched() -> Iterator[None]:
    """Check that the block does not use the global random generators of numpy and torch."""
    with foreign.preserved():
        np.random.seed(5)  # noqa: NPY002 - the global source is what is looked at
        torch.manual_seed(5)
        before = _states()
        yield
        ensure(_states() == before, "it draws from, or seeds, a global source: use rng alone")


def _states() -> tuple[str, str]:
    return str(np.random.get_state()), str(torch.get_rng_state().tolist())  # noqa: NPY002
