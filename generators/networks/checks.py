"""Checks of hyperparameters."""

import math
from collections.abc import Sequence

from bench.contract import check


def one_of(name: str, value: str, valid: Sequence[str]) -> None:
    """Check that a hyperparameter is one of the valid names."""
    check(value in valid, f"{name} is '{value}', expected one of {', '.join(valid)}")


def at_least(name: str, value: float | int, least: int) -> None:
    """Check a hyperparameter's lower bound, and that it is finite."""
    check(least <= value < math.inf, f"{name} is {value}, expected at least {least}")


def share(name: str, value: float) -> None:
    """Check that a hyperparameter is 0 or more and less than 1."""
    check(0 <= value < 1, f"{name} is {value}, expected 0 or more and less than 1")


def widths(name: str, value: Sequence[int]) -> tuple[int, ...]:
    """Check that a hyperparameter lists layers' widths, and return it as a tuple."""
    good = isinstance(value, Sequence) and len(value) > 0 and all(w >= 1 for w in value)
    check(good, f"{name} is {value}, expected at least one positive number")
    return tuple(value)


def positive(name: str, value: float | int) -> None:
    """Check that a hyperparameter is above 0 and finite."""
    check(0 < value < math.inf, f"{name} is {value}, expected a positive number")
