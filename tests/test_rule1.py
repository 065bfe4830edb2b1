from pathlib import Path

import pytest

from bench.records import report
from bench.records.fields import Interval
from bench.records.judged import Advantage
from bench.records.population import Likeness, Similarity
from bench.records.record import Record
from bench.records.rule1 import (
    LIKENED,
    MODELS,
    RULE,
    Evidence,
    Means,
    beats,
    nearest_control,
    of,
    verdict,
)
from tests.records import parsed
from tests.test_record import valid

ABOVE = Interval(value=0.02, low=0.01, high=0.03)
ZERO = Interval(value=0.0, low=-0.01, high=0.01)
BELOW = Interval(value=-0.02, low=-0.03, high=-0.01)
GOOD = Means(generated=0.9, original=0.91, ruined=0.1)


def similarity(original, nearest, within):
    """Similarity to the originals, to the nearest one, and within a population."""
    values = (original, nearest, within)
    parts = [None if value is None else Likeness(value=value) for value in values]
    return Similarity(originals=parts[0], nearest=parts[1], within=parts[2])


CONTROLS = {
    "copy": similarity(0.5, 1.0, 0.5),
    "noise 0.1": similarity(0.45, 0.8, 0.45),
    "interpolation": similarity(0.7, 0.9, 0.9),
    "gaussian": similarity(0.6, 0.7, 0.8),
    "average": similarity(0.75, 0.9, None),
}


def against(mean=ABOVE, beyond=0.0, typical=None):
    return Advantage(mean=mean, beyond=beyond, typical=typical)


AHEAD = {
    "noise": against(typical=ABOVE),
    "interpolation": against(),
    "gaussian": against(),
}


def judged(own, models=100, novelty=0.3, toward=0.2, means=GOOD, **advantages):
    """The word for models with this similarity that beat every control, unless it is said otherwise."""
    return verdict(means, Evidence(models, novelty, toward, AHEAD | advantages), own, CONTROLS)


COPYING = similarity(0.5, 0.99, 0.5)
AVERAGING = similarity(0.69, 0.9, 0.89)


def test_ahead_of_every_control_is_novel():
    assert judged(COPYING) == "novel"


@pytest.mark.parametrize("control", AHEAD)
@pytest.mark.parametrize("advantage", [ZERO, BELOW])
def test_one_control_that_is_not_beaten_is_enough(control, advantage):
    assert judged(COPYING, **{control: against(advantage, typical=ABOVE)}) == "copies"


@pytest.mark.parametrize("typical", [ZERO, BELOW])
def test_a_few_good_models_among_copies_do_not_beat_noise(typical):
    assert judged(COPYING, noise=against(typical=typical)) == "copies"


def test_a_control_that_never_gets_so_novel_is_beaten():
    assert beats(against(None, 1.0))
    assert beats(against(ZERO, 0.95))
    assert not beats(against(ZERO, 0.9))
    assert not beats(against(None, None))
    assert judged(COPYING, gaussian=against(None, 1.0)) == "novel"


def test_models_that_mostly_repeat_an_originals_mistakes_are_not_novel():
    assert judged(COPYING, novelty=0.0) == "copies"


def test_a_few_models_are_never_called_novel():
    assert judged(COPYING, MODELS) == "novel"
    assert judged(COPYING, MODELS - 1) == "copies"


def test_copies_and_averages_are_told_apart_by_weights_and_mistakes():
    tied = against(ZERO, typical=ZERO)
    assert judged(COPYING, noise=tied) == "copies"
    assert judged(AVERAGING, noise=tied) == "averages"
    assert judged(COPYING, noise=tied, toward=0.6) == "averages"


def test_lost_skill_is_broken_whatever_the_advantage():
    assert judged(COPYING, means=Means(0.5, 0.91, 0.1)) == "broken"
    assert judged(COPYING, means=Means(0.55, 0.91, 0.1)) == "novel"
    errors = Means(generated=50.0, original=9.0, ruined=90.0)  # lower is better
    assert errors.lost == pytest.approx(41 / 81)
    assert Means(0.9, 0.9, 0.9).lost == 0


def test_below_every_control_at_equal_novelty_is_broken():
    worse = dict.fromkeys(AHEAD, against(BELOW, typical=BELOW))
    assert judged(COPYING, **worse) == "broken"
    assert judged(COPYING, **worse | {"gaussian": against(ZERO)}) == "copies"


def test_the_nearest_control_copies_or_averages():
    assert nearest_control(similarity(0.51, 0.81, 0.51), CONTROLS) == "noise 0.1"
    # One model has no pairs within.
    assert nearest_control(similarity(0.74, 0.9, None), CONTROLS) == "average"
    assert nearest_control(similarity(0.6, 0.71, 0.79), CONTROLS) == "gaussian"


def test_fine_tuned_originals_are_no_control_that_is_compared_with():
    """They are trained: to be like them is no sign of copying."""
    made = record()
    assert "finetune" in made.controls
    assert "finetune" not in LIKENED


def record(**changes):
    data = valid()
    data["judge"] |= changes
    return parsed(data)


@pytest.mark.parametrize("word", ["broken", "copies", "averages", "novel"])
def test_the_report_says_the_verdict_that_is_recorded(word):
    lines = report.sentences(record(word=word))
    assert sum(line.startswith("verdict: ") for line in lines) == 1
    assert any(line.startswith(f"verdict: {word}") for line in lines)


def test_the_report_says_that_the_rule_is_withdrawn():
    (line,) = [one for one in report.sentences(record(word="novel")) if one.startswith("verdict")]
    assert line == "verdict: novel, by rule 1, which is withdrawn: run the command again"


def test_a_record_without_a_verdict_has_no_sentence_about_one():
    old = record(word=None, rule=None, sees_training=None)
    assert not any(line.startswith("verdict") for line in report.sentences(old))


def test_sentences_depend_on_the_record_alone():
    assert report.sentences(record()) == report.sentences(record())


def test_the_verdict_of_shipped_records_is_that_of_their_numbers():
    folder = Path(__file__).parents[1] / "leaderboard" / "results"
    shipped = [Record.read(path) for path in folder.rglob("*.json")]
    ruled = [one for one in shipped if one.judge.rule == RULE]
    assert len(ruled) > 100
    assert [one.judge.word for one in ruled] == [of(one) for one in ruled]
