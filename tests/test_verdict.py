import json
from pathlib import Path

import pytest

from bench.records import report
from bench.records.record import ControlSimilarity, Interval, Novelty, Record, Similarity
from bench.records.verdict import MODELS, Means, beats, nearest_control, of, verdict
from tests.test_record import valid

ABOVE = Interval(value=0.02, low=0.01, high=0.03)
ZERO = Interval(value=0.0, low=-0.01, high=0.01)
BELOW = Interval(value=-0.02, low=-0.03, high=-0.01)
GOOD = Means(generated=0.9, original=0.91, ruined=0.1)
CONTROLS = {
    "copy": ControlSimilarity(original=0.5, original_max=1.0, within=0.5),
    "noise 0.1": ControlSimilarity(original=0.45, original_max=0.8, within=0.45),
    "interpolation": ControlSimilarity(original=0.7, original_max=0.9, within=0.9),
    "gaussian": ControlSimilarity(original=0.6, original_max=0.7, within=0.8),
    "average": ControlSimilarity(original=0.75, original_max=0.9, within=None),
    "finetune": ControlSimilarity(original=0.51, original_max=0.81, within=0.51),
}


def point(value):
    return Interval(value=value, low=value, high=value)


def similarity(original, nearest, within):
    return Similarity(
        original_original=point(0.5),
        generated_generated=None if within is None else point(within),
        original_generated=point(original),
        original_generated_max=point(nearest),
        controls=CONTROLS,
    )


def novelty(**changes):
    facts = {
        "advantage_over_noise": ABOVE, "advantage_over_interpolation": ABOVE, "advantage_over_gaussian": ABOVE,
        "typical_advantage_over_noise": ABOVE, "median_novelty": 0.3, "beyond_noise": 0.0, "beyond_interpolation": 0.0,
        "beyond_gaussian": 0.0, "nearest_l2_ratio": 1.0, "toward_mean": 0.2, "collapsed": False, "rule": 1,
        "verdict": None, "sees_training": None,
    }  # fmt: skip
    return Novelty(**(facts | changes))


COPYING = similarity(0.5, 0.99, 0.5)
AVERAGING = similarity(0.69, 0.9, 0.89)


def test_ahead_of_every_control_is_novel():
    assert verdict(GOOD, 100, COPYING, novelty()) == "novel"


@pytest.mark.parametrize(
    "name",
    ["advantage_over_noise", "advantage_over_interpolation", "advantage_over_gaussian", "typical_advantage_over_noise"],
)  # fmt: skip
@pytest.mark.parametrize("advantage", [ZERO, BELOW])
def test_one_control_that_is_not_beaten_is_enough(name, advantage):
    assert verdict(GOOD, 100, COPYING, novelty(**{name: advantage})) == "copies"


def test_a_control_that_never_gets_so_novel_is_beaten():
    assert beats(None, 1.0)
    assert beats(ZERO, 0.95)
    assert not beats(ZERO, 0.9)
    assert not beats(None, None)
    beyond = novelty(advantage_over_gaussian=None, beyond_gaussian=1.0)
    assert verdict(GOOD, 100, COPYING, beyond) == "novel"


def test_models_that_mostly_repeat_an_originals_mistakes_are_not_novel():
    assert verdict(GOOD, 100, COPYING, novelty(median_novelty=0.0)) == "copies"


def test_a_few_models_are_never_called_novel():
    assert verdict(GOOD, MODELS, COPYING, novelty()) == "novel"
    assert verdict(GOOD, MODELS - 1, COPYING, novelty()) == "copies"


def test_copies_and_averages_are_told_apart_by_weights_and_mistakes():
    tied = {"advantage_over_noise": ZERO}
    assert verdict(GOOD, 100, COPYING, novelty(**tied)) == "copies"
    assert verdict(GOOD, 100, AVERAGING, novelty(**tied)) == "averages"
    assert verdict(GOOD, 100, COPYING, novelty(**tied, toward_mean=0.6)) == "averages"


def test_lost_skill_is_broken_whatever_the_advantage():
    assert verdict(Means(0.5, 0.91, 0.1), 100, COPYING, novelty()) == "broken"
    assert verdict(Means(0.55, 0.91, 0.1), 100, COPYING, novelty()) == "novel"
    errors = Means(generated=50.0, original=9.0, ruined=90.0)  # lower is better
    assert errors.lost == pytest.approx(41 / 81)
    assert Means(0.9, 0.9, 0.9).lost == 0


def test_below_every_control_at_equal_novelty_is_broken():
    worse = dict.fromkeys(
        ["advantage_over_noise", "advantage_over_interpolation", "advantage_over_gaussian"], BELOW
    )
    assert verdict(GOOD, 100, COPYING, novelty(**worse)) == "broken"
    assert (
        verdict(GOOD, 100, COPYING, novelty(**worse | {"advantage_over_gaussian": ZERO}))
        == "copies"
    )


def test_the_nearest_control_copies_or_averages():
    assert nearest_control(similarity(0.51, 0.81, 0.51)) == "noise 0.1"  # finetune is no candidate
    assert (
        nearest_control(similarity(0.74, 0.9, None)) == "average"
    )  # one model has no pairs within
    assert nearest_control(similarity(0.6, 0.71, 0.79)) == "gaussian"


def record(**changes):
    data = valid()
    data["novelty"] |= changes
    return Record.model_validate_json(json.dumps(data))


@pytest.mark.parametrize("word", ["broken", "copies", "averages", "novel"])
def test_the_report_says_the_verdict_that_is_recorded(word):
    lines = report.sentences(record(verdict=word))
    assert sum(line.startswith("verdict: ") for line in lines) == 1
    assert any(line.startswith(f"verdict: {word}") for line in lines)


def test_the_report_says_where_the_rule_is_blind():
    assert any("fine-tuned" in line for line in report.sentences(record(sees_training=False)))
    assert not any("fine-tuned" in line for line in report.sentences(record(sees_training=True)))
    novel = record(sees_training=False, verdict="novel")
    assert not any("fine-tuned" in line for line in report.sentences(novel))


def test_a_record_without_a_verdict_has_no_sentence_about_one():
    old = record(verdict=None, rule=None, sees_training=None)
    assert not any(line.startswith("verdict") for line in report.sentences(old))


def test_sentences_depend_on_the_record_alone():
    assert report.sentences(record()) == report.sentences(record())


SHIPPED = sorted((Path(__file__).parents[1] / "leaderboard" / "results").rglob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_verdict_of_shipped_records_is_that_of_their_numbers(path):
    shipped = Record.read(path)
    if shipped.novelty.rule is not None:
        assert of(shipped) == shipped.novelty.verdict
