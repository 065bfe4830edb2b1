import json
from pathlib import Path

import numpy as np
import pytest

from bench.records import check, versions
from bench.records.checks import weights
from bench.records.checks.case import Case
from bench.records.record import Record
from bench.records.versions import Withdrawal
from leaderboard import columns, outcomes
from leaderboard.opened import Shown
from tests.records import judged, record

ACCURACY = Withdrawal("accuracy", 1, "it counted half of the images twice")


def test_a_record_of_rule_1_keeps_numbers_that_are_withdrawn():
    old = record()
    assert set(versions.withdrawn(old)) == {"word", "origin", "collapsed"}
    assert set(versions.of(old).values()) == {1}


def test_nothing_of_a_record_of_today_is_withdrawn():
    new = judged()
    assert versions.withdrawn(new) == {}
    assert versions.of(new) == versions.CURRENT | {"word": 2}


def test_every_withdrawal_is_of_a_number_that_there_is_and_not_of_its_newest_version():
    for one in versions.WITHDRAWN:
        newest = {**versions.CURRENT, versions.WORD: 2}[one.number]
        assert one.version < newest
        assert one.reason


def test_a_metric_that_is_withdrawn_has_no_group_and_is_refused_by_the_check(monkeypatch, tmp_path):
    monkeypatch.setattr(versions, "WITHDRAWN", (ACCURACY,))
    one = judged()
    assert versions.withdrawn(one) == {versions.SCORES: ACCURACY.reason}
    rows = outcomes.rows_of([("row", Shown("row", one, {}))], one.id)
    found = outcomes.compare(rows, "mean")
    assert not found.groups
    assert set(found.untested.values()) == {f"their metric is withdrawn: {ACCURACY.reason}"}
    path = tmp_path / one.key / f"{one.id}.json"
    one.write(tmp_path)
    assert any("version 1 of accuracy is withdrawn" in line for line in check.check(path))


def test_the_board_marks_what_is_withdrawn():
    text = columns.NAMED["collapsed"].fields[0].read
    assert text(record(), "generated") == "yes (withdrawn)"
    assert text(judged(), "generated") in ("yes", "no")


def test_the_check_names_what_is_withdrawn():
    path = next(Path("leaderboard/results").rglob("*.json"))
    assert check.fine(path) == "ok; withdrawn: word, origin, collapsed"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"likeness": 1}, "versions.likeness: there is no such number"),
        ({"timing": 3}, "versions.timing is 3, expected at most 2"),
    ],
)
def test_a_version_that_there_never_was_is_refused(tmp_path, said, problem):
    data = json.loads(judged().to_json())
    data["versions"] |= said
    found = Record.model_validate_json(json.dumps(data))
    found.write(tmp_path)
    lines = check.check(tmp_path / found.key / f"{found.id}.json")
    assert any(problem in line for line in lines), lines


def test_a_distance_over_the_references_that_the_weights_make_impossible_is_refused():
    rng, made = np.random.default_rng(0), json.loads(judged().to_json())
    arrays = {
        f"weights.{name}": rng.normal(size=(8, 16)).astype(np.float16)
        for name in ("original", "generated", "reference")
    }
    for ratio, problems in ((1.0, 0), (1e9, 1)):
        made["judge"]["origin"] |= {"nearest_l2_ratio": ratio, "toward_mean": 0.5}
        made["judge"]["origin"]["nearest_l2_ratio_aligned"] = None
        one = Record.model_validate_json(json.dumps(made))
        found = [line for line in weights.problems(Case(one, arrays)) if "l2_ratio" in line]
        assert len(found) == problems, found
