"""The header of a zoo's file, read without its tensors. Imports no torch."""

import dataclasses
import json
from pathlib import Path

from bench.errors import no_zoo
from bench.system.data import Settings

LIMIT = 100_000_000  # bytes of a header, as in the safetensors format


@dataclasses.dataclass(frozen=True)
class ZooHeader:
    """The header of a zoo's file.

    Attributes:
        k: number of checkpoints.
        settings: how the checkpoints were collected, see ``bench.contract.zoo.Zoo``.
    """

    k: int
    settings: Settings

    @property
    def seed(self) -> int | None:
        """The seed that the checkpoints were collected with; None where the file does not say."""
        seed = self.settings.get("zoo_seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def read_header(path: Path) -> ZooHeader:
    """Read the header of a zoo's file.

    Raises:
        BadRequest: the file is missing, or is no zoo.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 0 < length <= LIMIT else {}
        settings = json.loads(header["__metadata__"]["zoo"])["settings"]
        k = header["vectors"]["shape"][0]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise no_zoo(path, error) from None
    if not isinstance(settings, dict) or not isinstance(k, int) or k < 1:
        raise no_zoo(path)
    return ZooHeader(k, settings)
