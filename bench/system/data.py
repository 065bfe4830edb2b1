"""Types of plain data, which JSON, a command line and a record can hold; ``Any`` stands for it only here."""

from collections.abc import Mapping
from typing import Any, TypeAlias

Json: TypeAlias = Any  # a number, a text, a truth value, None, or a list or mapping of such
Settings: TypeAlias = Mapping[str, Json]  # by name
