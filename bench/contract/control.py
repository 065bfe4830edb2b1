"""Names of the constructions that every generator is compared with. Imports nothing heavy."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Control:
    """A simple construction of models that any real generator must beat.

    Attributes:
        name: of the generator that makes the models.
        amplitude: of the noise, for one level of a sweep.
        aligned: whether the checkpoints' hidden units are aligned before the generator is fitted.

    >>> str(Control("noise", 0.1)), str(Control("average", aligned=True))
    ('noise 0.1', 'aligned average')
    """

    name: str
    amplitude: float | None = None
    aligned: bool = False

    def __str__(self) -> str:
        words = ["aligned"] if self.aligned else []
        words += [self.name] if self.amplitude is None else [self.name, f"{self.amplitude:g}"]
        return " ".join(words)
