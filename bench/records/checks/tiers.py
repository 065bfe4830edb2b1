"""How far a record was verified: only ``bench verify --mark`` says so, of the record as it stands."""

import functools
from collections.abc import Iterator
from pathlib import Path

from bench.records.checks.case import told
from bench.records.record import Record, content_hash

EARLIER = Path(__file__).parents[1] / "earlier_tiers.txt"


def problems(record: Record, data: bytes) -> Iterator[str]:
    """Where a tier was not written by ``bench verify``, or the record was changed since.

    Args:
        record: as read.
        data: the file's content.
    """
    found = content_hash(data)
    if record.tier == "claimed":
        if record.verified:
            yield told("verified", "there", None, "the tier is claimed")
    elif record.verified is None:
        if (record.id, found) not in earlier():
            yield told("tier", record.tier, "claimed", "'bench verify --mark' did not write it")
    elif record.verified.record != found:
        yield told("verified.record", record.verified.record, found, "the record was changed since")


@functools.cache
def earlier() -> frozenset[tuple[str, str]]:
    """Ids and hashes of the records that got their tier before one left a mark."""
    lines = EARLIER.read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return frozenset((name, content) for name, content in pairs)
