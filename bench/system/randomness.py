"""Random numbers: every draw comes from an explicit generator, named by its seed and its purpose.

A ``torch.Generator`` is passed around as ``rng``. ``derive`` treats it as a key: it reads only the seed it was made
with, so a stage that is resumed after a kill draws the same numbers as one that was never interrupted.
"""

import contextlib
from collections.abc import Iterator

import torch

from bench.system.seeds import number


def generator(
    seed: int, *purpose: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator for a seed and a purpose, independent of those for every other purpose."""
    return torch.Generator(device=device).manual_seed(number(seed, *purpose))


def derive(
    rng: torch.Generator, *purpose: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator derived from the seed ``rng`` was made with; the state of ``rng`` does not matter."""
    return generator(rng.initial_seed(), *purpose, device=device)


@contextlib.contextmanager
def scoped(rng: torch.Generator) -> Iterator[None]:
    """Seed torch's global CPU generator, which module initialisers use, from ``rng`` for the length of a block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.initial_seed())
        yield
