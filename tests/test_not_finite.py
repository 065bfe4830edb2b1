"""What is not finite is wrong and is counted; here in classification."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.contract.evaluation import check_evaluation
from bench.system.randomness import generator
from tasks.data.images import Images
from tasks.fast.finite import not_finite
from tasks.fast.scoring import ClassifierScorer
from tests.broken import BAD, INF, NAN, make, right_by_hand, spoilt, work_folder


@pytest.mark.parametrize("value", BAD)
def test_one_value_is_enough(value):
    rows = torch.zeros(2, 3, 5)
    assert not not_finite(rows).any()
    rows[1, 2, 4] = value
    assert not_finite(rows).nonzero().tolist() == [[1, 2]]


def test_finite_values_whose_sum_overflows_are_finite():
    rows = torch.full((2, 3, 4), 3e38)
    assert rows.sum().isinf()
    assert not not_finite(rows).any()
    rows[0, 1, 0], rows[0, 1, 1] = INF, -INF
    assert not_finite(rows).nonzero().tolist() == [[0, 1]]


LABELS = torch.tensor([0, 0, 1, 2, 2, 2, 1, 0])  # three of class 0, two of 1, three of 2
RIGHT = torch.eye(3)[LABELS]
CLASSIFIERS = {  # logits, which images are right, of how many logits are not finite
    "constant": (torch.full((8, 3), 0.25), [1, 1, 0, 0, 0, 0, 0, 1], 0),
    "all right": (RIGHT, [1] * 8, 0),
    "all right and huge": ((2 * RIGHT - 1) * 3e38, [1] * 8, 0),
    "all NaN": (torch.full((8, 3), NAN), [0] * 8, 8),
    "one NaN image": (RIGHT.index_fill(0, torch.tensor([4]), NAN), [1, 1, 1, 1, 0, 1, 1, 1], 1),
    "one NaN logit": (
        torch.where(torch.arange(24).view(8, 3) == 5, NAN, RIGHT),  # image 1, class 2
        [1, 0, 1, 1, 1, 1, 1, 1],
        1,
    ),
    "inf at the right class": (RIGHT.masked_fill(RIGHT == 1, INF), [0] * 8, 8),
    "-inf at all others": (RIGHT.masked_fill(RIGHT == 0, -INF), [0] * 8, 8),
    "-inf everywhere": (torch.full((8, 3), -INF), [0] * 8, 8),
}


def scorer_of(logits: torch.Tensor, labels: torch.Tensor) -> ClassifierScorer:
    """A scorer whose candidates give these logits, two images at a time."""
    scorer = ClassifierScorer.__new__(ClassifierScorer)
    blank = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    column = torch.ones(1, 1, 1)
    scorer.source = Images(blank, labels, column, column, 2, "cpu")
    parts = [slice(low, min(low + 2, len(labels))) for low in range(0, len(labels), 2)]
    everyone = slice(0, len(logits))
    scorer.candidates = lambda _: ((everyone, rows, logits[:, rows]) for rows in parts)
    return scorer


def test_degenerate_classifiers():
    logits = torch.stack([logits for logits, *_ in CLASSIFIERS.values()])
    scored = scorer_of(logits, LABELS)(torch.zeros(len(logits), 1))
    for row, (right, broken) in enumerate(rest for _, *rest in CLASSIFIERS.values()):
        assert scored.wrong[row].tolist() == [not one for one in right]
        assert scored.not_finite[row] == broken
        assert scored.loss[row].isinf() == (broken > 0)
    assert scored.not_finite.dtype == torch.int64
    assert scored.loss[0].item() == pytest.approx(math.log(3))


@settings(max_examples=60, deadline=None)
@given(
    share=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    classes=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)
def test_classifiers_are_judged_as_by_hand(share, classes, seed):
    rng = torch.Generator().manual_seed(seed)
    logits = spoilt(torch.randint(4, (3, 7, classes), generator=rng).float(), share, rng)  # ties
    labels = torch.randint(classes, (7,), generator=rng)
    scored = scorer_of(logits, labels)(torch.zeros(3, 1))
    for row, wrong, broken in zip(logits, scored.wrong, scored.not_finite, strict=True):
        pairs = zip(row.tolist(), labels.tolist(), strict=True)
        assert wrong.tolist() == [not right_by_hand(*pair) for pair in pairs]
        assert broken == sum(not all(map(math.isfinite, values)) for values in row.tolist())
    assert not scored.loss.isnan().any()
    assert torch.equal(scored.loss.isinf(), scored.not_finite > 0)


@pytest.mark.parametrize("layers", ["linear", "all", "last-norms:2"])
def test_classifiers_with_such_weights_get_nothing_right_and_spoil_no_other(layers):
    task = make("fake", layers=layers)
    zoo = task.collect(2, rng=generator(0), work=work_folder())
    vectors = torch.stack([zoo.vectors[0], *(zoo.vectors[0] * bad for bad in BAD), zoo.vectors[1]])
    for split in ("train", "val"):
        found = task.scorer(zoo, split)(vectors)
        healthy = task.scorer(zoo, split)(zoo.vectors)
        assert torch.equal(found.scores[[0, 4]], healthy.scores)
        assert torch.equal(found.wrong[[0, 4]], healthy.wrong)
        assert found.wrong[1:4].all()
        assert found.scores[1:4].tolist() == [0, 0, 0]
        count = task.size(split)
        assert found.not_finite.tolist() == [0, count, count, count, 0]
        assert found.extra["loss"].isinf().tolist() == [False, True, True, True, False]
        check_evaluation(found, 5, "Classification")


class Given(nn.Module):
    """Gives what it was given, batch after batch."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs, self.seen = outputs, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return self.outputs[self.seen - len(images) : self.seen]


def test_the_score_of_one_classifier_obeys_the_same_rule():
    task = make("fake")
    labels = task._scored("val").labels
    logits = torch.eye(4)[labels]
    assert task.score(Given(logits)) == 1
    logits[3], logits[5, labels[5]], logits[6, (labels[6] + 1) % 4] = NAN, INF, -INF
    assert task.score(Given(logits)) == (len(labels) - 3) / len(labels)
    assert task.score(Given(torch.full_like(logits, NAN))) == 0
