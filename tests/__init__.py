"""The tests. ``check`` is the type checker that checks shapes while they run (see pyproject.toml)."""

from typing import Self

from beartype import BeartypeConf, FrozenDict, beartype

# The import hook decorates methods one by one, where beartype cannot know what Self is.
check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: object})))
