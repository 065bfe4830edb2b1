"""Check of a record's tier: only ``bench verify --mark`` writes one above claimed, for the record as it was then."""

import functools
from collections.abc import Iterator
from pathlib import Path

from bench.records.checks.case import mismatch
from bench.records.record import Record, content_hash

EARLIER = Path(__file__).parents[1] / "earlier_tiers.txt"


def problems(record: Record, data: bytes) -> Iterator[str]:
    """Yield a problem where ``bench verify`` did not write the tier, or the record was changed since.

    Args:
        record: the record.
        data: content of the record's file.
    """
    found = content_hash(data)
    if record.tier == "claimed":
        if record.verified:
            yield mismatch("verified", "there", None, "the tier is claimed")
    elif record.verified is None:
        if (record.id, found) not in earlier():
            yield mismatch("tier", record.tier, "claimed", "'bench verify --mark' did not write it")
    elif record.verified.record != found:
        yield mismatch(
            "verified.record", record.verified.record, found, "the record was changed since"
        )


@functools.cache
def earlier() -> frozenset[tuple[str, str]]:
    """Return ids and content hashes of the records with a tier from before ``bench verify`` left a mark."""
    lines = EARLIER.read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return frozenset((name, content) for name, content in pairs)
