"""Vectors that are being collected, and other tensors, on disk."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.errors import BenchError
from bench.system.store import atomic


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, atomically."""
    with atomic(path) as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what ``save_tensors`` wrote.

    Raises:
        BenchError: the file is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BenchError(f"the cached file {path} is damaged ({error}): delete it") from error


class Rows:
    """The K x D matrix while it is being collected: on disk, row by row, so that a killed run goes on.

    Args:
        folder: where ``vectors`` (raw float32) and ``state.safetensors`` lie.
        k, dim: the matrix's shape.

    Attributes:
        vectors: the matrix, mapped from the file; rows from ``done`` on are not written yet.
        done: how many rows are finished.
        seconds: training time up to (trajectory) or of (seeds) each row.
        state: tensors that were kept with the last row.
    """

    def __init__(self, folder: Path, k: int, dim: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._state_path = folder / "state.safetensors"
        self.state = load_tensors(self._state_path) if self._state_path.exists() else {}
        self.seconds = self.state.pop("seconds", torch.zeros(k, dtype=torch.float64))
        self.done = int(self.state.pop("done", torch.zeros(1)))
        self.k = k
        flat = torch.from_file(str(folder / "vectors"), shared=True, size=k * dim)
        self.vectors: Float[Tensor, "K D"] = flat.view(k, dim)

    def keep(
        self, vectors: Float[Tensor, "n D"], seconds: Sequence[float], state: dict[str, Tensor]
    ) -> None:
        """Write the next n rows, then the state that goes with them."""
        end = self.done + len(vectors)
        self.vectors[self.done : end] = vectors
        self.seconds[self.done : end] = torch.tensor(seconds, dtype=torch.float64)
        self.done, self.state = end, state
        facts = {"done": torch.tensor(end), "seconds": self.seconds}
        save_tensors({**facts, **state}, self._state_path)
