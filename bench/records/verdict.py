"""The verdict: one word for a generator, by a rule on the record's numbers alone. docs/verdict.md has the reasons.

Rule 2: what a generator's models are made of, beside models that really were trained (the reference) and simple
constructions (the controls). A word needs evidence for it; without, it is "undecided".
"""

import dataclasses
from collections.abc import Iterator

from bench.records.fields import Verdict
from bench.records.judged import Judgement
from bench.records.record import Record
from bench.records.rule1 import LOST, Means, noisiest

RULE = 2  # a record says by which rule it was written
HALF = 0.5  # share of the models that a word needs
MODELS, REFERENCE = 100, 50  # the fewest generated models and models of the reference
RESOLUTION = 0.3  # the lowest of a board
COPYING = 0.01  # p-value of the copy test that shows copying
MISFIT, MISFIT_P = 0.15, 0.01  # residual and p-value of a mixture that fits badly
WORDS: dict[str, Verdict] = {
    "new": "novel",
    "copies": "copies",
    "averages": "averages",
    "broken": "broken",
}


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the rule reads.

    Attributes:
        lost: share of what separates the originals from the noisiest control that the models lost.
        models, reference: how many models were generated, and held out.
        judgement: the generated models against the reference; None without a reference.
        resolution: of the board.
    """

    lost: float
    models: int
    reference: int
    judgement: Judgement | None
    resolution: float | None

    @classmethod
    def of(cls, record: Record) -> "Evidence":
        """Return what a record says."""
        made, held = record.generated, record.populations.get("reference")
        means = Means(made.mean, record.original.mean, noisiest(record.controls).mean)
        return cls(
            lost=means.lost,
            models=record.protocol.samples,  # a generator whose samples are all equal has a single one scored
            reference=held.n if held else 0,
            judgement=record.judge.against_reference.get("generated"),
            resolution=record.judge.resolution,
        )


def of(record: Record) -> Verdict:
    """Return the word that a record's numbers give."""
    return word(Evidence.of(record))


def word(evidence: Evidence) -> Verdict:
    """Return the word: broken, copies, averages, novel, or undecided where there is any doubt."""
    if evidence.lost > LOST:
        return "broken"
    if evidence.judgement is None or any(doubts(evidence)):
        return "undecided"
    shares = evidence.judgement.composition.shares
    return WORDS[max(shares, key=lambda name: shares[name])]


def doubts(evidence: Evidence) -> Iterator[str]:
    """Yield why the models' word cannot be told, a reason each."""
    judgement = evidence.judgement
    if judgement is None or evidence.resolution is None:
        yield "there is no reference of held-out trained models"
        return
    if evidence.models < MODELS:
        yield f"{evidence.models} models were generated, {MODELS} are needed"
    if evidence.reference < REFERENCE:
        yield f"the reference has {evidence.reference} models, {REFERENCE} are needed"
    if evidence.resolution < RESOLUTION:
        yield (
            f"the board cannot tell training from every control: resolution {evidence.resolution:.2f}, "
            f"{RESOLUTION} is needed"
        )
    mixture, copying = judgement.composition, judgement.copying
    if mixture.residual > MISFIT and mixture.p <= MISFIT_P:
        yield f"no mixture fits: {mixture.residual:.2f} of the reference's own distance is left"
    if max(mixture.shares.values()) < HALF:
        yield "nothing makes up one half of the models"
    if mixture.new.value >= HALF and copying.p <= COPYING:
        yield f"{copying.nearer} models are nearer to a checkpoint than any that never saw one"
