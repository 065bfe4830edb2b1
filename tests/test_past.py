import dataclasses
import json

import pytest

from bench.records.request import Request
from bench.study import view
from bench.study.executor import Finished, Outcome, Started
from bench.study.graph import build
from bench.study.past import Past
from bench.system import store

DIGITS = Request(task="digits", generator="pdiff", k=20, samples=10, device="cpu")


def nodes(request=DIGITS):
    return {node.kind: node for node in build([request], {})}


def change(**values):
    return nodes(dataclasses.replace(DIGITS, **values))


def test_without_a_measurement_a_rule_of_thumb_that_grows_with_the_work():
    past = Past()
    small, paper = nodes(), change(preset="paper")
    large = change(task="cifar100")
    seeds = change(task="cifar10", task_settings={"track": "seeds", "layers": "all"})
    for kind in ("collect", "controls", "fit", "record"):
        estimate = past.estimate(small[kind])
        assert not estimate.measured
        assert 0 < estimate.seconds < 60
    assert past.estimate(large["collect"]).seconds > 100 * past.estimate(small["collect"]).seconds
    assert past.estimate(paper["fit"]).seconds > 100 * past.estimate(small["fit"]).seconds
    assert past.estimate(seeds["collect"]).written > past.estimate(large["collect"]).written / 2


def test_what_was_measured_wins_and_lasts():
    past, own = Past(), nodes()
    for seconds in (10.0, 30.0, 11.0):
        past.keep(own["fit"], Outcome("done", seconds, 1000))
    past.keep(own["fit"], Outcome("cached", 0.1))
    past.keep(own["fit"], Outcome("failed", 0.1))
    for known in (past, Past()):
        estimate = known.estimate(own["fit"])
        assert (estimate.seconds, estimate.written, estimate.measured) == (11.0, 1000, True)
    assert Past().estimate(change(seed=5)["fit"]).measured
    assert not Past().estimate(change(generator="vae")["fit"]).measured
    assert not Past().estimate(change(device="cuda")["fit"]).measured


def test_scoring_grows_with_the_number_of_models():
    past = Past()
    past.keep(nodes()["record"], Outcome("done", 10.0))
    assert past.estimate(change(samples=30)["record"]).seconds == pytest.approx(30)


def test_a_line_that_was_cut_short_is_left_out():
    past, own = Past(), nodes()
    past.keep(own["fit"], Outcome("done", 5.0))
    file = store.home() / "measured.jsonl"
    file.write_text(file.read_text() + '{"like": "')
    assert Past().estimate(own["fit"]).seconds == 5
    assert json.loads(file.read_text().splitlines()[0])["seconds"] == 5


def test_time_left_is_known_once_something_was_made():
    own = nodes()
    with view.View("x", list(own.values()), Past()) as shown:
        assert shown.seconds_left() is None
        shown.started(Started(own["collect"]))
        shown.finished(Finished(own["collect"], Outcome("done", 4.0)))
        assert shown.seconds_left() > 0
        for kind in ("controls", "fit", "record"):
            shown.finished(Finished(own[kind], Outcome("cached", 0.1)))
        assert shown.seconds_left() == 0
