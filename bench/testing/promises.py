"""A promise is a function whose name says what a plugin promises, and which raises where it is broken."""

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
    """A plugin does not do what its contract says."""


def ensure(condition: bool, reason: str) -> None:
    """Raise ``BrokenPromise`` with the reason unless the condition holds."""
    if not condition:
        raise BrokenPromise(reason)


def derived(cls: type[object], contract: type[P]) -> type[P]:
    """Return a class that is one of a contract's: the first promise of every plugin.

    Args:
        cls: any class.
        contract: ``Generator`` or ``Task``.

    Raises:
        BrokenPromise: it is no dataclass derived from the contract, or lacks a method.
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
    """Hold a plugin to its promises, one after another; later ones may rely on earlier ones.

    Args:
        promises: the checks.
        subject: what each of them is called with.
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
    """Return a source of random numbers."""
    return torch.Generator().manual_seed(seed)


def documented(cls: type[object]) -> bool:
    """Return whether a dataclass has a docstring of its own, and not the one that is made of its fields."""
    text = vars(cls).get("__doc__") or ""
    return bool(text.strip()) and not text.startswith(f"{cls.__name__}(")


@contextmanager
def untouched() -> Iterator[None]:
    """Check that a block leaves the global random sources of numpy and torch alone."""
    with foreign.preserved():
        np.random.seed(5)  # noqa: NPY002 - the global source is what is looked at
        torch.manual_seed(5)
        before = _states()
        yield
        ensure(_states() == before, "it draws from, or seeds, a global source: use rng alone")


def _states() -> tuple[str, str]:
    return str(np.random.get_state()), str(torch.get_rng_state().tolist())  # noqa: NPY002
