"""Speed beside SGD, against numbers worked out by hand; and how sampling is timed."""

import json
import math
import time

import pytest
import torch
from safetensors.torch import save_file

from bench.contract import Generator, Layout, Metric, Zoo
from bench.judge.timing import timing
from bench.records import facts, report, speed
from bench.records.request import Request
from bench.runs import pipeline
from bench.runs.stages import load_sampled
from bench.system.randomness import derive, generator
from tests.records import judged, parsed, record

# The base is there after 2 s of training; two checkpoints follow.
CURVE = [(1.0, 0.25), (2.0, 0.5), (4.0, 0.75), (8.0, 0.875)]
ZOO = facts.Zoo(hash="0" * 64, track="trajectory", k=2, d=3, seed=0, base_score=0.5)


def measured(**changes):
    """5 models, 2 s to sample and 1 s to select each, after 100 + 20 s; SGD needs 4 s to 0.75, 2 s of it from 0.5."""
    known = {
        "device": "cpu", "zoo": ZOO, "layers": "norms", "curve": CURVE, "collect_s": 100.0, "fit_s": 20.0,
        "sample_s": 10.0, "sample_repeats_s": (9.0, 10.0, 13.0), "models": 5, "select_s": 5.0, "score_s": 3.0,
        "selected": 0.75, "best": 0.875, "metric": Metric("accuracy", scale=100), "word": "averages",
        "peak_memory_bytes": 1,
    }  # fmt: skip
    return timing(**(known | changes))


def speedups(found):
    """The speed-ups and the break-even, in the order of the record."""
    names = [*(f"speedup{part}" for part in ("", "_marginal")), *AMORTISED, "break_even_models"]
    return [getattr(found, name) for name in names]


AMORTISED = [f"speedup_amortised_{models}" for models in speed.AMORTISED]


def test_times_by_hand():
    found = measured()
    assert found.target_score == 0.75
    assert (found.base_s, found.sgd_s, found.marginal_s) == (2, 4, 2)
    assert (found.sample_per_model_s, found.select_per_model_s) == (2, 1)
    assert found.sample_repeats_s == [9, 10, 13]
    assert speedups(found) == pytest.approx(
        [
            4 / 2,  # sampling alone
            2 / 3,  # from the base, sampling and selecting
            4 / 123,  # 120 s before the first, and 3 s each
            40 / 150,
            400 / 420,
            120,  # 120 / (4 - 3)
        ]
    )
    assert (found.collect_s, found.fit_s, found.select_s, found.score_s) == (100, 20, 5, 3)


def test_a_record_has_the_numbers_of_models_that_it_is_amortised_over():
    assert set(AMORTISED) == {name for name in facts.Timing.model_fields if "_amortised" in name}


def test_the_number_of_samples_changes_no_speedup():
    """Twice the models in twice the time are no other generator."""
    twice = measured(sample_s=20.0, select_s=10.0, models=10)
    assert speedups(twice) == speedups(measured())


def test_what_broken_models_cost_is_no_speedup():
    found = measured(word="broken")
    assert speedups(found) == [None] * 6
    assert (found.sgd_s, found.marginal_s, found.sample_per_model_s) == (4, 2, 2)


@pytest.mark.parametrize("selected", [0.5, 0.3])
def test_no_time_from_a_base_that_is_there_already(selected):
    found = measured(selected=selected)
    assert (found.base_s, found.marginal_s, found.speedup_marginal) == (2, None, None)
    assert found.sgd_s == 2
    assert found.speedup == 1


def test_a_score_that_was_lost_again_before_the_base_is_reached_from_the_base():
    curve = [(1.0, 0.8), (2.0, 0.5), (4.0, 0.7), (8.0, 0.875)]
    found = measured(curve=curve)
    assert (found.base_s, found.sgd_s, found.marginal_s) == (2, 1, 6)


def test_independent_runs_of_whole_networks_start_from_no_base():
    zoo = ZOO.model_copy(update={"track": "seeds"})
    whole, part = measured(zoo=zoo, layers="all"), measured(zoo=zoo)
    assert (whole.base_s, whole.marginal_s, whole.speedup_marginal) == (None, 4, 4 / 3)
    assert (part.base_s, part.marginal_s) == (2, 2)  # the rest of their networks is the base's


def test_a_zoo_without_a_base_starts_where_sgd_does():
    found = measured(zoo=ZOO.model_copy(update={"base_score": None}))
    assert (found.base_s, found.marginal_s) == (None, 4)


def test_a_curve_of_checkpoints_alone_does_not_tell_the_time_of_the_base():
    found = measured(curve=CURVE[2:])
    assert (found.base_s, found.sgd_s, found.marginal_s) == (None, 4, None)


def test_target_is_never_better_than_the_best_original():
    found = measured(selected=0.9, best=0.5)
    assert (found.target_score, found.sgd_s) == (0.5, 2)


def test_break_even_is_after_at_least_one_model():
    assert measured(collect_s=0.0, fit_s=0.0).break_even_models == 1


@pytest.mark.parametrize("fit_s", [0.7, 20.0, 20.5, 123.4])
def test_from_the_break_even_on_the_generator_costs_no_more(fit_s):
    found = measured(fit_s=fit_s)
    cost = speed.Cost(100.0, fit_s, 2.0, 1.0)
    models = found.break_even_models
    assert cost.in_all(models) <= models * found.sgd_s
    assert cost.in_all(models - 1) > (models - 1) * found.sgd_s


def test_a_zoo_without_a_curve():
    found = measured(curve=[])
    assert (found.base_s, found.sgd_s, found.marginal_s) == (None, None, None)
    assert speedups(found) == [None] * 6


def test_sgd_never_reached_the_target():
    found = measured(curve=[*CURVE[:2], (4.0, 0.5), (8.0, 0.6)])
    assert (found.base_s, found.sgd_s, found.marginal_s) == (2, None, None)


def test_an_imported_zoo_has_no_amortised_number():
    found = measured(collect_s=None)
    assert speedups(found) == [2, 2 / 3, None, None, None, None]


def test_no_break_even_where_sgd_is_as_fast():
    found = measured(select_s=10.0)  # 4 s a model, as SGD
    assert found.break_even_models is None
    assert found.speedup_amortised_100 == pytest.approx(400 / 520)


def test_no_break_even_beyond_what_a_record_holds():
    assert measured(collect_s=1e30).break_even_models is None


def test_no_speedup_over_no_time():
    found = measured(sample_s=0.0, select_s=0.0)
    assert (found.speedup, found.speedup_marginal) == (None, None)
    assert found.speedup_amortised_1 == 4 / 120


def test_where_lower_is_better():
    curve = [(seconds, 1 - score) for seconds, score in CURVE]
    zoo = ZOO.model_copy(update={"base_score": 0.5})
    metric = Metric("error", higher_is_better=False)
    found = measured(curve=curve, selected=0.25, best=0.125, metric=metric, zoo=zoo)
    assert (found.target_score, found.sgd_s, found.marginal_s) == (0.25, 4, 2)
    assert speedups(found) == speedups(measured())


def test_scoring_on_validation_is_no_cost_of_the_generator():
    """It is the benchmark's."""
    assert speedups(measured(score_s=math.pi)) == speedups(measured())


# Records of schema 1 -------------------------------------------------------------------------------------------------


def test_a_record_of_schema_1_has_todays_numbers_by_its_times():
    """1 s of collecting, 2 s of fitting, 0.1 s of sampling and 0.05 s of selecting a model; 1 s of SGD."""
    found = record(zoo__base_score=0.5).timing
    assert speedups(found) == pytest.approx([10, None, 1 / 3.15, 10 / 4.5, 100 / 18, 4])
    assert (found.sample_repeats_s, found.base_s, found.marginal_s) == (None, None, None)


def test_what_a_record_of_schema_1_says_of_its_speed_is_not_read():
    lies = {"speedup": 1e6, "speedup_amortised": 1e6, "break_even_models": 1}
    lying = record(**{f"timing__{name}": value for name, value in lies.items()})
    assert lying.timing == record().timing


def test_whole_networks_from_seeds_of_schema_1_have_a_marginal_time():
    made = record(zoo__track="seeds", task__layers="all", timing__collect_s=None)
    assert made.timing.marginal_s == 1
    assert speedups(made.timing)[:3] == pytest.approx([10, 1 / 0.15, None])


def test_broken_models_of_schema_1_have_no_speedup():
    made = record(novelty__verdict="broken", novelty__rule=1)
    assert speedups(made.timing) == [None] * 6
    assert report.speedups(made) == ["no speed-up: the models are broken"]


# In words ------------------------------------------------------------------------------------------------------------


def timed(**fields):
    """A record of this schema with other times."""
    data = json.loads(judged().to_json())
    data["timing"] |= fields
    return parsed(data)


def test_the_report_says_every_speedup():
    made = timed(base_s=0.5, marginal_s=0.5, speedup_marginal=3.0)
    assert report.speedups(made) == [
        "speed-up over SGD from the start to a score of 90: 500x for sampling alone",
        "speed-up of one more model over SGD from the zoo's own base, with selecting: 3x",
        "with collecting, fitting and selecting: 0.333x for 1, 3.3x for 10, 30.3x for 100 models; "
        "pays off from 4 models",
    ]


def test_the_report_says_why_there_is_no_marginal_speedup():
    said = "speed-up of one more model: not"
    assert f"{said} applicable: the zoo's own base is there already" in report.speedups(record())
    early = record(zoo__base_score=0.5)
    assert f"{said} known: when the base was trained is not recorded" in report.speedups(early)
    (line,) = report.speedups(record(timing__sgd_s=None))
    assert line == "no speed-up: there is no time of SGD to the same score in this zoo"


def test_the_report_says_how_sampling_was_timed():
    assert report.sampled(record()) == "sample: timed once, after a single model"
    five = timed(sample_s=0.2, sample_repeats_s=[0.2, 0.19, 0.25])
    assert report.sampled(five) == "sample: median of 3, 0.19 to 0.25, after as many models"
    assert (
        report.sampled(timed(sample_repeats_s=[0.2])) == "sample: timed once, after as many models"
    )


# How sampling is timed -----------------------------------------------------------------------------------------------


class Counting(Generator):
    """Draws noise; its first sampling after a fit is slow, and it counts what it is asked for."""

    first_s, every_s = 0.2, 0.0

    def fit(self, zoo, *, rng):
        self.layout_, self.asked_ = zoo.layout, []
        return self

    def sample(self, n, *, rng):
        time.sleep(self.every_s if self.asked_ else self.first_s)
        self.asked_.append(n)
        return torch.randn(n, self.layout_.dim, generator=rng)


@pytest.fixture
def run(tmp_path):
    """A run of four models, and a zoo of three parameters."""
    settings = {"epochs": 1, "batch_size": 20}
    asked = Request(
        task="fake", generator="gaussian", task_settings=settings, k=5, samples=4, device="cpu",
        results=tmp_path,
    )  # fmt: skip
    return pipeline.Run(asked), Zoo(torch.eye(3), Layout(("a",), ((3,),)))


def test_sampling_is_timed_five_times_at_its_number_of_models_and_warm(run):
    own, zoo = run
    maker = Counting()
    made = own.sample(maker, "counting", zoo, 4, timed=True)
    assert maker.asked_ == [4] * 6
    assert len(made.sample_repeats_s) == 5
    assert max(made.sample_repeats_s) < Counting.first_s
    assert made.sample_s == sorted(made.sample_repeats_s)[2]
    again = load_sampled(made.path)
    assert (again.sample_s, again.sample_repeats_s) == (made.sample_s, made.sample_repeats_s)


def test_repeats_are_not_the_models_that_are_kept(run):
    """Those are drawn as they are without any repeat."""
    own, zoo = run
    kept = own.sample(Counting(), "counting", zoo, 4, timed=True).vectors
    alone = Counting().fit(zoo, rng=None)
    key = generator(0, "0", "counting")
    assert torch.equal(kept, alone.sample(4, rng=derive(key, "sample")))
    assert torch.equal(kept, own.sample(Counting(), "counting", zoo, 4).vectors)


def test_a_generator_that_changes_its_own_samples_leaves_those_that_are_kept(run):
    class Reusing(Counting):
        """Gives out one tensor again and again."""

        def sample(self, n, *, rng):
            new = super().sample(n, rng=rng)
            self.out_ = getattr(self, "out_", new)
            self.out_.copy_(new)
            return self.out_

    own, zoo = run
    kept = own.sample(Reusing(), "reusing", zoo, 4, timed=True).vectors
    first = Counting().fit(zoo, rng=None)
    assert torch.equal(kept, first.sample(4, rng=derive(generator(0, "0", "reusing"), "sample")))


@pytest.mark.parametrize(("limit", "repeats"), [(0.0, 1), (0.05, 2), (60.0, 5)])
def test_a_slow_generator_is_timed_less_often(run, monkeypatch, limit, repeats):
    """Once at least; a second time only before the limit, which one sampling of 0.03 s does not reach."""
    own, zoo = run
    monkeypatch.setattr(Counting, "every_s", 0.03)
    monkeypatch.setattr(pipeline, "REPEATING_S", limit)
    made = own.sample(Counting(), "counting", zoo, 4, timed=True)
    assert 1 <= len(made.sample_repeats_s) <= repeats
    assert (len(made.sample_repeats_s) == 5) == (repeats == 5)


def test_controls_are_sampled_once(run):
    own, zoo = run
    maker = Counting()
    made = own.sample(maker, "counting", zoo, 4)
    assert maker.asked_ == [4]
    assert made.sample_repeats_s == ()
    assert made.path != own.sample(Counting(), "counting", zoo, 4, timed=True).path


def test_files_from_before_sampling_was_repeated_are_read_and_not_taken_for_repeated(tmp_path):
    told = {"fit_s": 1.0, "sample_s": 2.0, "peak_memory_bytes": 3}
    file = tmp_path / "earlier.safetensors"
    save_file({"vectors": torch.eye(3)}, file, {"facts": json.dumps(told)})
    earlier = load_sampled(file)
    assert (earlier.fit_s, earlier.sample_s, earlier.sample_repeats_s) == (1, 2, ())
    repeats = earlier.sample_repeats_s
    assert measured(sample_s=earlier.sample_s, sample_repeats_s=repeats).sample_repeats_s is None
