"""What a package declares of its plugins, as plain values. Imports nothing heavy."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Variant:
    """A named task: a class, its settings, and how large a run is by default.

    Attributes:
        target: ``module:Class`` of the task.
        about: one line for ``bench list``.
        settings: fields of the class that differ from its defaults.
        k, samples: checkpoints and generated models of a run that does not say how many.
    """

    target: str
    about: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    k: int = 200
    samples: int = 100
