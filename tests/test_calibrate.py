from collections import Counter

import pytest
import torch
from scipy.stats import beta

from bench.errors import BadRequest
from bench.judge.align import found_groups
from bench.records.request import Request
from bench.runs import calibrate as known
from bench.runs.calibrate import LONGER, ORACLE, calibrate, conclusion, share
from bench.runs.pipeline import Run
from tests.standins import call

ALIGNED = {"permuted copies", "aligned average of 2", "aligned average of 16"}


def request(**settings):
    own = {"epochs": 1, "batch_size": 20, "arch": "mlp3", **settings}
    return Request(
        task="fake", generator="copy", task_settings=own, k=6, samples=10, held_out=4, device="cpu"
    )


@pytest.mark.parametrize(("track", "layers"), [("seeds", "all"), ("trajectory", "linear")])
def test_every_planted_generator_gets_a_word_for_every_zoo(track, layers, monkeypatch):
    asked = request(track=track, layers=layers)
    zoos = 1 if track == "seeds" else 2
    table = calibrate(asked, zoos)
    assert {ORACLE, "copies", "90 % copies, 10 % new", "noise in the span"} < set(table)
    assert (LONGER in table) is (track == "trajectory")
    assert (set(table) >= ALIGNED) is (track == "seeds")
    assert all(counts.total() == zoos for counts in table.values())
    monkeypatch.delattr(Run, "zoo")  # the words of finished trials are kept
    assert calibrate(asked, zoos) == table


def test_permuted_copies_do_the_same_with_other_weights():
    run = Run(request(track="seeds", layers="all"))
    zoo, _ = run.zoo()
    assert found_groups(zoo)
    moved = known.permuted(zoo, zoo.vectors, torch.Generator().manual_seed(0))
    assert not torch.allclose(moved, zoo.vectors, atol=1e-3)
    score = run.scorer(zoo, "val")
    assert torch.allclose(score(moved).outputs, score(zoo.vectors).outputs, atol=1e-5)


def test_noise_in_the_span_stays_in_it(zoo):
    moved = known.in_span(zoo, zoo.vectors, torch.Generator().manual_seed(0)).double()
    centre = zoo.vectors.double().mean(0)
    basis = (zoo.vectors.double() - centre).T
    explained = basis @ torch.linalg.lstsq(basis, (moved - centre).T, driver="gelsd").solution
    assert torch.allclose(explained.T, moved - centre, atol=1e-5)
    assert not torch.allclose(moved.float(), zoo.vectors, atol=1e-2)


def test_a_share_has_the_exact_interval():
    table = {"copies": Counter(copies=57, novel=3)}
    assert share(table, "copies") == pytest.approx(
        (0.05, beta.ppf(0.025, 3, 58), beta.ppf(0.975, 4, 57))
    )


def test_the_conclusion_names_the_worst_trivial_kind():
    table = {
        "copies": Counter(copies=40),
        "gaussian": Counter(averages=37, novel=3),
        LONGER: Counter(novel=40),
        ORACLE: Counter(novel=36, undecided=2, copies=2),
    }
    said = conclusion(table)
    assert said.startswith("not reached: held-out training is called novel in 90.0 % of zoos")
    assert "undecided in 5.0 %" in said
    assert "'gaussian' is called novel in 7.5 %" in said
    table["gaussian"] = Counter(averages=38, novel=2)
    assert conclusion(table).startswith("reached")


def test_no_trial_is_refused():
    with pytest.raises(BadRequest, match="trials is 0, expected at least 1"):
        calibrate(request(), 0)


def test_the_command_prints_the_table_and_the_conclusion(capsys):
    words = ("--task", "fake", "--trials", 1, "--k", 6, "--samples", 10, "--held-out", 4)
    assert call("calibrate", *words, "--set", "task.epochs=1", "--set", "task.batch_size=20") == 0
    printed = capsys.readouterr().out
    assert "trained, held out" in printed
    assert "called novel in" in printed
