"""What a zoo's file tells beside its tensors, validated, and its header, read without them. Imports no torch."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.contract.whole_runs import check_labels, told
from bench.errors import BadRequest, no_zoo
from bench.system import reading
from bench.system.data import Json, Settings

LIMIT = 20_000_000  # bytes of a header: lists of small values take thirty times as many in memory
FACTS = "zoo"  # name of the facts among the metadata of a zoo's file
Size = Annotated[int, Field(ge=0, le=2**53)]


class Facts(BaseModel):
    """What a zoo's file tells beside its tensors; the fields are those of ``bench.contract.zoo.Zoo``.

    Attributes:
        names, shapes: the layout.
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    names: tuple[str, ...]
    shapes: tuple[tuple[Size, ...], ...]
    scores: tuple[float, ...]
    curve: tuple[tuple[float, float], ...]
    collect_s: Annotated[float, Field(ge=0)]
    base_score: float | None
    settings: dict[str, Json]
    runs: tuple[Json, ...] = ()
    epochs: tuple[int, ...] = ()

    @classmethod
    def parsed(cls, text: str, k: int) -> Self:
        """Return the facts of K checkpoints from their JSON.

        Raises:
            ValueError: a fact is missing or is of another type.
            BadRequest: a fact is of other checkpoints.
        """
        try:
            facts = cls.model_validate_json(text)
        except ValidationError as error:
            wrong = error.errors()[0]
            place = ".".join(map(str, wrong["loc"])) or "its facts"
            raise ValueError(f"{place}: {wrong['msg']}") from None
        check_labels(facts.runs, k)
        if len(facts.scores) not in (0, k):
            raise BadRequest(f"scores of {len(facts.scores)} checkpoints are told, the zoo has {k}")
        if 0 < len(facts.curve) < k:
            raise BadRequest(
                f"the curve has {len(facts.curve)} points, its last {k} are the checkpoints"
            )
        return facts


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


def opened(path: Path) -> io.BufferedReader:
    """Open a zoo's file.

    Raises:
        BadRequest: it is missing or no regular file.
    """
    if not path.exists():
        raise no_zoo(path, FileNotFoundError())
    return reading.opened(path, None, "zoo")


def read_header(path: Path) -> ZooHeader:
    """Read the header of a zoo's file.

    Raises:
        BadRequest: the file is missing, is no zoo, or tells the runs of other checkpoints than it has.
    """
    with opened(path) as file:
        length = int.from_bytes(file.read(8), "little")
        content = file.read(length) if 0 < length <= LIMIT else b"{}"
    try:
        header = json.loads(content)
        text, k = header["__metadata__"][FACTS], header["vectors"]["shape"][0]
        if type(k) is not int or k < 1:
            raise ValueError("no checkpoints")
        facts = Facts.parsed(text, k)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise no_zoo(path, error) from None
    except BadRequest as error:
        raise BadRequest(f"{path}: {error}") from None
    return ZooHeader(k, facts.settings, told(facts.runs, facts.settings))
