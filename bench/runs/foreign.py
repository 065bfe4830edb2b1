"""Isolation of plugins' code: its changes to the process or to its arguments must not affect any number."""

import contextlib
import os
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from bench.contract import Generator
from bench.contract.zoo import Zoo
from bench.errors import BenchError, unexpected
from bench.records.values import plain
from bench.system.data import Json

Setting = tuple[Callable[[], object], Callable[..., object]]  # how to read it, and how to set it

# Settings of the process that affect numbers.
_SETTINGS: tuple[Setting, ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, lambda device: torch.set_default_device(None)),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (lambda: torch.backends.cudnn.allow_tf32, lambda on: setattr(torch.backends.cudnn, "allow_tf32", on)),
    (lambda: torch.backends.cudnn.benchmark, lambda on: setattr(torch.backends.cudnn, "benchmark", on)),
    (lambda: torch.backends.mkldnn.enabled, lambda on: torch.backends.mkldnn.set_flags(on)),
    (os.getcwd, os.chdir),
)  # fmt: skip
# Global sources of random numbers.
_SOURCES: tuple[Setting, ...] = (
    (torch.get_rng_state, torch.set_rng_state),
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
)


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Restore after the block the settings of the process that affect numbers, and global random states.

    Raises:
        BenchError: the code in the block ended the process (``sys.exit``), which is not for a plugin to do.
    """
    settings = [(read, write, read()) for read, write in _SETTINGS]
    sources = [(write, read()) for read, write in _SOURCES]
    try:
        yield
    except SystemExit as stop:
        raise BenchError(f"a plugin ended the process: {unexpected(stop)}") from stop
    finally:
        for read, write, value in settings:
            if read() != value:
                write(value)
        for write, value in sources:
            write(value)


def hyperparameters(maker: Generator) -> dict[str, Json]:
    """Return a generator's hyperparameters as plain data.

    Raises:
        BadRequest: a value that no command line or record can hold.
    """
    values: dict[str, Json] = plain(maker.hyperparameters(), "hyperparameters")
    return values


def check_vectors(vectors: object, count: int, zoo: Zoo, name: str) -> None:
    """Check that models are an n x D float32 matrix of finite numbers on the CPU.

    Args:
        vectors: what a method returned.
        count: n.
        zoo: the checkpoints, of D numbers each.
        name: of the method, such as "Gaussian.sample".

    Raises:
        BenchError: the method broke its contract.
    """
    expected = (count, zoo.layout.dim)
    if not isinstance(vectors, Tensor):
        raise BenchError(f"{name} returned {type(vectors)}, expected float32 of shape {expected}")
    usual = vectors.layout == torch.strided and vectors.device.type == "cpu"
    if vectors.shape != expected or vectors.dtype != torch.float32 or not usual:
        where = "" if usual else f" ({vectors.layout} on {vectors.device})"
        raise BenchError(
            f"{name} returned {tuple(vectors.shape)} {vectors.dtype}{where}, "
            f"expected float32 of shape {expected}"
        )
    broken = int((~vectors.isfinite().all(dim=1)).sum())
    if broken:
        raise BenchError(f"{name} returned {broken} of {count} vectors with NaN or inf")


def check_view(view: object, rows: int, dimensions: int, name: str) -> Tensor:
    """Check the latents or the sampling path of a generator; return a copy of them on the CPU.

    Args:
        view: the return value of ``latents`` (two dimensions) or ``sampling_path`` (three).
        rows: its number of models.
        dimensions: its number of dimensions.
        name: the method, for the message.

    Raises:
        BenchError: the view has another form, or numbers that are not finite.
    """
    if isinstance(view, Tensor):
        form = view.ndim == dimensions and len(view) == rows and view.is_floating_point()
        if form and bool(view.isfinite().all()):
            return view.detach().cpu().clone()
    got = f"{tuple(view.shape)} {view.dtype}" if isinstance(view, Tensor) else type(view)
    raise BenchError(
        f"{name} returned {got}, expected finite numbers of {rows} models in {dimensions} dimensions"
    )
