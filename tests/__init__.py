"""The tests. ``check`` is the type checker that checks shapes while they run (see pyproject.toml)."""

import functools
from typing import Self

from beartype import BeartypeConf, FrozenDict, beartype

# The import hook decorates methods one by one, where beartype cannot know what Self is.
_checked = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: object})))


def check(function):
    """Check what a function is called with, from its first call on: a process calls a few of thousands."""

    made = []

    @functools.wraps(function)
    def lazily(*args, **named):
        if not made:
            made.append(_checked(function))
        return made[0](*args, **named)

    return lazily
