import dataclasses
import sys
from collections import Counter

import pytest
import torch
from scipy.stats import beta

from bench import cli, declared
from bench.contract import Control, Evaluation
from bench.errors import BadRequest
from bench.records.request import Request
from bench.runs.calibrate import (
    Mixture,
    Pool,
    calibrate,
    conclusion,
    controls,
    planted,
    share,
)
from bench.runs.pipeline import Run, make_generator


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def request(**settings):
    own = {"epochs": 1, "batch_size": 20, "arch": "mlp3", **settings}
    return Request(task="fake", generator="copy", task_settings=own, k=6, samples=4, device="cpu")


@pytest.mark.parametrize(("track", "layers"), [("seeds", "all"), ("trajectory", "linear")])
def test_every_planted_generator_gets_a_verdict_in_every_trial(track, layers):
    table = calibrate(request(track=track, layers=layers), 2, 12)
    assert set(table) == set(planted(torch.zeros(1, 1), "quick", "cpu"))
    assert all(counts.total() == 2 for counts in table.values())
    again = calibrate(request(track=track, layers=layers), 2, 12)
    assert table == again


def test_trials_draw_zoos_that_the_oracle_has_not_seen(zoo):
    pool = Pool(zoo, zoo.vectors[:0], torch.zeros(12), torch.zeros(12, 3, dtype=torch.bool))
    drawn, new = pool.draw(5, rng())
    rows = torch.cat([drawn.vectors, new])
    assert (len(drawn), len(new)) == (5, 7)
    assert torch.equal(rows.sort(dim=0).values, zoo.vectors.sort(dim=0).values)
    assert not torch.equal(drawn.vectors, pool.draw(5, rng(1))[0].vectors)


def test_models_of_the_pool_are_not_scored_again(zoo):
    def score(vectors):
        assert len(vectors) == 1  # the only one that is not in the pool
        return Evaluation(torch.tensor([0.5]).double(), torch.ones(1, 3) > 0, {})

    val = torch.arange(12).double()
    pool = Pool(zoo, zoo.vectors[:0], val, torch.zeros(12, 3, dtype=torch.bool))
    found, wrong = pool.scores(score, torch.cat([zoo.vectors[[7, 2]], torch.zeros(1, 41)]))
    assert found.tolist() == [7, 2, 0.5]
    assert wrong.sum(dim=1).tolist() == [0, 0, 3]


def test_a_mixture_has_its_share_of_new_models(zoo):
    new = torch.full((5, 41), 7.0)
    copies = make_generator("copy", {}, "quick", "cpu")
    made = Mixture(new, copies, 0.1).fit(zoo, rng=rng()).sample(20, rng=rng())
    assert (made == 7).all(dim=1).sum() == 2
    assert len(Mixture(new).fit(zoo, rng=rng()).sample(5, rng=rng())) == 5


def test_controls_are_the_pipelines():
    run = Run(dataclasses.replace(request(track="seeds", layers="all"), samples=8))
    zoo, _ = run.zoo()
    made = controls(run, zoo)
    trained = {"finetune", "greedy_soup"}
    everything = (*declared.controls(), *declared.twins())
    assert set(made) == {control for control in everything if control.name not in trained}
    assert made[Control("noise", 0.1)][1] == made[Control("gaussian")][1] == 4
    assert made[Control("gaussian", aligned=True)][1] == 4
    assert made[Control("copy")][1] == 8


def table(oracle, copies):
    return {
        "copies": Counter(copies=100 - copies, novel=copies),
        "oracle": Counter(novel=oracle, averages=100 - oracle),
    }


def test_intervals_are_clopper_pearsons():
    value, low, high = share(table(93, 0), "oracle")
    expected = beta.ppf([0.025, 0.975], [93, 94], [8, 7])
    assert (value, low, high) == pytest.approx((0.93, *expected))


@pytest.mark.parametrize(
    ("oracle", "copies", "word"),
    [(90, 5, "reached"), (89, 0, "not reached"), (100, 6, "not reached")],
)
def test_the_conclusion_is_that_of_the_table(oracle, copies, word):
    assert conclusion(table(oracle, copies)).startswith(
        f"{word}: the oracle is called novel in {oracle}"
    )


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(BadRequest, match="trials is 0"):
        calibrate(request(), 0, 12)
    with pytest.raises(BadRequest, match="the pool has 9 checkpoints"):
        calibrate(request(), 1, 9)


def test_the_command_prints_the_confusion_table(monkeypatch, capsys):
    words = ["bench", "calibrate", "--task", "fake", "--trials", "1", "--pool", "10", "--k", "6", "--samples", "4",
             "--set", "task.epochs=1", "--device", "cpu"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "called novel" in out
    assert "90 % copies, 10 % new" in out
    assert "reached: the oracle is called novel in" in out
