"""The header of a zoo's file, read without its tensors. Imports no torch."""

import dataclasses
import json
from pathlib import Path

from bench.contract.whole_runs import check_labels, told
from bench.errors import BadRequest, no_zoo
from bench.system.data import Settings

LIMIT = 100_000_000  # bytes of a header, as in the safetensors format


@dataclasses.dataclass(frozen=True)
class ZooHeader:
    """The header of a zoo's file.

    Attributes:
        k: number of checkpoints.
        settings: how the checkpoints were collected, see ``bench.contract.zoo.Zoo``.
        runs: the run of every checkpoint, where rows can be held out by it; otherwise empty.
    """

    k: int
    settings: Settings
    runs: tuple[str, ...] = ()

    @property
    def seed(self) -> int | None:
        """The seed that the checkpoints were collected with; None where the file does not say."""
        seed = self.settings.get("zoo_seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def read_header(path: Path) -> ZooHeader:
    """Read the header of a zoo's file.

    Raises:
        BadRequest: the file is missing, is no zoo, or tells the runs of other checkpoints than it has.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 0 < length <= LIMIT else {}
        facts = json.loads(header["__metadata__"]["zoo"])
        settings, runs = facts["settings"], facts.get("runs", [])
        k = header["vectors"]["shape"][0]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise no_zoo(path, error) from None
    valid = isinstance(settings, dict) and isinstance(runs, list) and isinstance(k, int) and k >= 1
    if not valid:
        raise no_zoo(path)
    try:
        check_labels(runs, k)
    except BadRequest as error:
        raise BadRequest(f"{path}: {error}") from None
    return ZooHeader(k, settings, told(runs, settings))
