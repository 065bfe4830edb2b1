"""Versions of the numbers of a record, and the list of those that are withdrawn. Imports no torch.

A number whose definition is corrected gets a new version, and a line in ``WITHDRAWN`` if the earlier one misled.
Records keep what they say; the board leaves withdrawn numbers out or marks them, and ``bench check`` names them.
"""

import dataclasses

from bench.records.record import Record

# Versions by the part of a record that holds the numbers. The headline metric has its own (``task.metric``), and so has
# the rule of the verdict (``judge.rule``).
CURRENT = {
    "similarity": 1,
    "advantages": 1,
    "origin": 2,  # distances after alignment, over the reference's
    "collapsed": 2,  # by the interval of the variety beside the reference
    "tests": 1,
    "composition": 1,
    "copying": 1,
    "quality": 1,
    "variety": 1,
    "fidelity": 1,
    "span_residual": 1,
    "resolution": 1,
    "timing": 2,  # sampling is timed warm, at the timed batch
}
WORD = "word"  # the verdict; its version is that of the rule
SCORES = "scores"  # the headline metric and all that follows from it


@dataclasses.dataclass(frozen=True)
class Withdrawal:
    """A version of a number that misled.

    Attributes:
        number: a name of ``CURRENT``, ``WORD``, or the name of a headline metric.
        version: the last version that is withdrawn; earlier ones are as well.
        reason: why, as the end of a sentence.
    """

    number: str
    version: int
    reason: str


WITHDRAWN = (
    Withdrawal(
        WORD, 1, "rule 1 called means of aligned checkpoints novel, and trained models copies"
    ),
    Withdrawal("origin", 1, "distances of weights were taken without aligning hidden units"),
    Withdrawal("collapsed", 1, "it was said without an interval"),
)


def of(record: Record) -> dict[str, int]:
    """Return the versions of a record's numbers; what a record from before there were versions has is of the first."""
    said = dict.fromkeys(CURRENT, 1) | record.versions
    return said | {WORD: record.judge.rule or 1}


def withdrawn(record: Record) -> dict[str, str]:
    """Return why numbers of a record are withdrawn, by their name; ``SCORES`` for the headline metric."""
    versions, metric = of(record), record.task.metric
    found = {}
    for one in WITHDRAWN:
        if one.number == metric.name and metric.version <= one.version:
            found[SCORES] = one.reason
        elif versions.get(one.number, one.version + 1) <= one.version:
            found[one.number] = one.reason
    return found
