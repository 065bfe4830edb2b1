"""The tests. While they run, what the suite's functions are given and return is checked, shapes too.

``--jaxtyping-packages`` in pyproject.toml names the packages, and ``tests.check`` as what checks a function. It has
jaxtyping decorate every function with ``jaxtyping.jaxtyped``: half a millisecond or more when it is made, and
50 microseconds a call. ``sparingly`` stands in its place: 1 microsecond a call from the 4th on.
"""

import dataclasses
import functools
from collections import Counter
from typing import Self

import jaxtyping
from beartype import BeartypeConf, FrozenDict, beartype

# The import hook decorates methods one by one, where beartype cannot know what Self is.
check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: object})))
CHECKED = (
    3  # calls of a function in one test function: checking 50 made whole runs take 40 % longer
)
calls: Counter[int] = Counter()  # by function, in the test function that runs
calls_of = ""  # that test function: conftest.py clears the calls where another begins


def sparingly(function, jaxtyped=jaxtyping.jaxtyped):
    """Check the first calls in every test; decorate at the very first, for a process calls a few of thousands."""
    code = id(function.__code__)  # the same for all that one ``def`` within a function makes
    decorated = []

    @functools.wraps(function)
    def called(*args, **named):
        calls[code] += 1
        if calls[code] > CHECKED:
            return function(*args, **named)
        if not decorated:
            decorated.append(jaxtyped(function, typechecker=check))
        return decorated[0](*args, **named)

    return called


def _decorate(made):
    """Have a function checked, or what makes a dataclass unless it is written out and so decorated already."""
    if not isinstance(made, type):
        return sparingly(made)
    if dataclasses.is_dataclass(made) and not hasattr(made.__init__, "__wrapped__"):
        made.__init__ = sparingly(made.__init__)
    return made


jaxtyping.jaxtyped = lambda *, typechecker: _decorate
