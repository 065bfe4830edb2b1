"""Means of two checkpoints."""

from dataclasses import dataclass

from bench.contract import Generator
from generators.controls.interpolation import Interpolation


@dataclass
class MeanOfTwo(Interpolation, Generator):
    """The mean of two different checkpoints drawn at random."""

    members: int = 2
