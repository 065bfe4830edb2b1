"""The contract of a generator: ``fit`` a zoo, ``sample`` new vectors. Fields are hyperparameters, and nothing else."""

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contract.context import Plugin
from bench.contract.needs import Where, used
from bench.contract.zoo import Zoo
from bench.errors import BadRequest
from bench.system.data import Json, Settings


@runtime_checkable
class Score(Protocol):
    """Scores on the *training* split, higher is better: all that a generator may learn about the data."""

    def __call__(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        """Score n vectors."""
        ...


@runtime_checkable
class Train(Protocol):
    """Trains each of the given vectors for a few more optimizer steps on the training split."""

    def __call__(
        self, vectors: Float[Tensor, "n D"], *, steps: int, rng: torch.Generator
    ) -> Float[Tensor, "n D"]:
        """Train each of n vectors for ``steps`` more optimizer steps."""
        ...


@dataclasses.dataclass
class Generator(Plugin, ABC):
    """A program that synthesises weights from a zoo of trained ones.

    A subclass is a dataclass whose fields are its hyperparameters; ``fit`` stores what it learned in attributes whose
    names end in ``_``. It sees vectors and layout, never data or labels. One that needs more says so in ``needs``,
    gets it as a keyword argument of ``fit``, and the record tells.

    One whose method aligns hidden units first has a hyperparameter ``align``, true or false. Where it is true, ``fit``
    gets checkpoints whose hidden units are aligned (``bench.judge.align``), or as they are where none can be permuted,
    and the record tells that too.

    Attributes:
        needs: extra arguments of ``fit``: "score" (scores on the training split), "train" (more optimizer steps).
        needs_where: of needs that depend on hyperparameters, the values that ask for it, by hyperparameter: {"score":
            {"condition": ["score"]}} says that ``fit`` is given "score" where condition = score alone.
        deterministic: whether every sample is the same, so that one is enough.
        presets: hyperparameters that differ from the defaults (the quick preset), by preset name: "paper", and others
            that this generator alone has.
        amplitudes: as a control, the values of its hyperparameter ``amplitude``, each of which is a control of its own;
            empty where it has none.
        share_of_models: as a control, its number of models as a share of the generator's; of a sweep, that of each
            amplitude.
        made_of: as a control, what its models are made of: "copies", "averages" or "broken"; empty where it enters no
            composition.
        broken_from: as a control, the amplitude from which on its models are "broken" whatever they are made of; None
            where none is.
        aligned_too: as a control, whether a twin is fitted to aligned checkpoints where hidden units can be permuted.
        has_latents, has_path: whether ``latents`` and ``sampling_path`` can be asked for, after ``fit``.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    needs_where: ClassVar[Where] = {}
    deterministic: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Settings]] = {}
    amplitudes: ClassVar[tuple[float, ...]] = ()
    share_of_models: ClassVar[float] = 1.0
    made_of: ClassVar[str] = ""
    broken_from: ClassVar[float | None] = None
    aligned_too: ClassVar[bool] = False
    has_latents: ClassVar[bool] = False
    has_path: ClassVar[bool] = False

    @abstractmethod
    def fit(self, zoo: Zoo, *, rng: torch.Generator) -> Self:
        """Learn from the zoo and return self.

        Args:
            zoo: the checkpoints; float32, K x D.
            rng: the source of every random draw.
        """

    @abstractmethod
    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "n D"]:
        """Synthesise n vectors, float32, on the CPU."""

    def uses(self) -> tuple[str, ...]:
        """Return the extra arguments that ``fit`` is given, which ``needs`` and ``needs_where`` say."""
        return used(self.needs, self.needs_where, self.settings())

    @property
    def aligns(self) -> bool:
        """Whether the method aligns hidden units first: its hyperparameter ``align``, false where it has none."""
        return getattr(self, "align", False) is True

    def latents(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n l"]:
        """Return the latent representation of n vectors, n x l on the CPU; for figures."""
        raise NotImplementedError

    def sampling_path(self, n: int, steps: int, *, rng: torch.Generator) -> Float[Tensor, "n s D"]:
        """Return at most ``steps`` evenly spaced vectors along the path from noise to each of n samples, on the CPU."""
        raise NotImplementedError

    def hyperparameters(self) -> dict[str, Json]:
        """Return every hyperparameter with its value, as copies."""
        return copy.deepcopy(self.settings())


def check(condition: bool, message: str) -> None:
    """Raise ``BadRequest`` with the message unless the condition holds; for hyperparameters in ``__post_init__``."""
    if not condition:
        raise BadRequest(message)
