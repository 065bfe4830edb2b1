import json

import numpy as np
import pandas as pd
import pytest

from bench.records.side import MODELS
from leaderboard import load, plots
from leaderboard.opened import Shown
from tests.records import MARKUP, distances, judged, parsed, population, record, seed
from tests.test_pages import arrays

FIGURES = {
    "score_against_similarity": lambda one: plots.score_against_similarity([one]),
    "distributions": lambda one: plots.distributions([one]),
    "four_comparisons": lambda one: plots.four_comparisons([one]),
    "iou_heat_map": plots.iou_heat_map,
    "map": lambda one: plots.embedding(one, "map", paths=True),
    "latent": lambda one: plots.embedding(one, "latent"),
    "quality_and_cost": lambda one: plots.quality_and_cost([one], 100),
    "parameter_heat_map": plots.parameter_heat_map,
    "parameter_histogram": plots.parameter_histogram,
}
NEED_A_SIDE_FILE = {
    "iou_heat_map", "map", "latent", "parameter_heat_map", "parameter_histogram",
}  # fmt: skip


def shown(label="pdiff seed 0", **fields):
    one = record(**fields)
    return Shown(label, one, arrays(one))


def traces(figure):
    return {trace.name: trace for trace in figure.data}


@pytest.mark.parametrize("name", FIGURES)
def test_text_of_a_record_is_no_markup(name):
    one = shown(
        MARKUP,
        generator__name=MARKUP,
        task__metric=MARKUP,
        task__name=MARKUP,
        timing__device=MARKUP,
    )
    text = FIGURES[name](one).to_json()
    assert "<script>" not in text
    assert "\u202e" not in text
    assert "\\u202e" not in text.replace("\\\\u202e", "")


@pytest.mark.parametrize("name", FIGURES)
def test_without_a_side_file_a_figure_is_there_or_is_none(name):
    figure = FIGURES[name](Shown("x", record(), {}, "missing"))
    assert (figure is None) == (name in NEED_A_SIDE_FILE)


@pytest.mark.parametrize("name", FIGURES)
def test_backgrounds_are_transparent_and_axes_are_named(name):
    figure = FIGURES[name](shown())
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.width is None


def test_every_model_is_a_point_with_its_score_and_similarity():
    one = shown()
    found = traces(plots.score_against_similarity([one]))
    np.testing.assert_allclose(found["pdiff"].y, 100 * np.array(one.record.generated.values))
    np.testing.assert_allclose(found["pdiff"].x, one.side["nearest.generated"].astype(float))
    assert found["pdiff"].visible is True
    assert found["gaussian"].visible == "legendonly"
    noise = found["original + noise (means)"]
    assert list(noise.text) == ["0.1", "0.3"]
    np.testing.assert_allclose(
        noise.y, [100 * one.record.controls[f"noise {level}"].mean for level in (0.1, 0.3)]
    )


@pytest.mark.parametrize("higher", [True, False])
def test_axes_leave_out_what_is_far_worse_and_never_what_is_better(higher):
    values = [0.9 + 0.0001 * i for i in range(399)]
    worst, best = (-5.0, 0.95) if higher else (7.0, 0.85)
    content = distances()
    content["task"]["higher_is_better"] = higher
    content["task"]["metric"] = "score"
    further = content["scores"]["generated"]["further"]
    content["scores"]["generated"] = population(best, *values, worst, further=further)
    if not higher:
        own = content["scores"]["generated"]
        own["best"], own["worst"], own["selected"] = own["worst"], own["best"], own["worst"]
    content["protocol"]["samples"] = 401
    one = parsed(content)
    nearest = {"nearest.generated": np.linspace(0.5, 0.9, MODELS).astype(np.float16)}
    figure = plots.score_against_similarity([Shown("x", one, {**arrays(one), **nearest})])
    low, high = figure.layout.yaxis.range
    assert low < best < high
    assert not low < worst < high


def test_lengths_that_do_not_fit_draw_no_points():
    one = shown()
    side = {**one.side, "nearest.generated": np.ones(7, np.float16)}
    assert "pdiff" not in traces(plots.score_against_similarity([Shown("x", one.record, side)]))


def test_distributions_show_both_splits():
    figure = plots.distributions([shown()])
    splits = {str(trace.x[0]).rpartition("<br>")[2] for trace in figure.data}
    assert splits == {"validation", "training"}
    values = [trace for trace in figure.data if trace.x[0] == "pdiff<br>validation"]
    np.testing.assert_allclose(values[0].y, [88, 94])


def test_the_four_comparisons_are_the_records_with_their_intervals():
    fields = {"similarity__original_generated": {"value": 0.85, "low": 0.8, "high": 0.87}}
    (dots,) = plots.four_comparisons([shown(**fields)]).data
    np.testing.assert_allclose(dots.x, [0.8, 0.9, 0.85, 0.95])
    assert dots.error_x.array[2] == pytest.approx(0.02)
    assert dots.error_x.arrayminus[2] == pytest.approx(0.05)


def test_two_runs_have_two_colours_and_one_run_its_generators_own():
    runs = [shown("pdiff seed 0"), shown("pdiff seed 1", protocol__seed=1)]
    dots = plots.four_comparisons(runs).data
    assert dots[0].marker.color == plots.colour("pdiff")
    assert dots[1].marker.color != dots[0].marker.color
    assert [dot.name for dot in dots] == ["pdiff seed 0", "pdiff seed 1"]


def test_colours_are_stable_and_known_ones_distinct():
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
    assert plots.colour("noise 0.1") == plots.colour("noise")
    assert plots.colour("mine:Own") == plots.colour("mine:Own")
    assert plots.colour("mine:Own") in plots.OTHERS
    assert plots.colour("\udc80") in plots.OTHERS


def test_cost_is_all_that_some_models_need_and_broken_ones_are_not_on_the_frontier():
    one, broken = shown("pdiff"), shown("bad", novelty__verdict="broken", generator__name="bad")
    timing = one.record.timing
    for models in (1, 50):
        found = traces(plots.quality_and_cost([one, broken], models))
        each = timing.sample_per_model_s + timing.select_per_model_s
        np.testing.assert_allclose(
            found["pdiff"].x, [timing.collect_s + timing.fit_s + models * each]
        )
        np.testing.assert_allclose(
            found["SGD, each anew"].x, models * np.array([0.1, 0.5, 1.0]), rtol=1e-6
        )
        assert found["bad (broken)"].marker.symbol == "x"
        np.testing.assert_allclose(found["copy"].x, [timing.collect_s])
        assert set(found["frontier"].y) <= {
            trace.y[0] for trace in found.values() if trace.mode == "markers"
        }
        assert found["bad (broken)"].x[0] not in found["frontier"].x
    assert "pdiff" not in traces(
        plots.quality_and_cost([shown("pdiff", timing__collect_s=None)], 1)
    )


def test_similarity_against_k_has_a_line_a_generator_and_a_point_a_seed(tmp_path):
    runs = [seed(number, 0.8, 0.9) for number in range(2)]
    runs += [seed(7, 0.8, 0.9, generator__name="vae", similarity__original_generated_max=
                  {"value": 0.5, "low": 0.5, "high": 0.5})]  # fmt: skip
    for one in runs:
        one.write(tmp_path)
    figure = plots.similarity_against_k(load.load([tmp_path])[0])
    found = [trace for trace in figure.data if trace.name]
    assert {trace.name: list(trace.y) for trace in found} == {"pdiff": [0.95], "vae": [0.5]}
    assert sum(len(trace.x) for trace in figure.data if not trace.name) == 3


def test_maps_hold_every_point_and_paths_only_where_asked_for():
    one = shown()
    names = [trace.name for trace in plots.embedding(one, "map").data]
    assert names == ["original", "original + noise 0.1", "pdiff"]
    with_paths = plots.embedding(one, "map", paths=True).data
    assert len(with_paths) == 3 + len(one.side["map_path"]) > 3
    np.testing.assert_allclose(with_paths[3].x, one.side["map_path"][0, :, 0].astype(float))


def test_parameters_have_one_band_a_kind():
    one = shown()
    figure = plots.parameter_heat_map(one)
    assert [json.loads(trace.to_json())["type"] for trace in figure.data] == ["heatmap"] * 3
    np.testing.assert_allclose(figure.data[1].z, one.side["weights.generated"].astype(float))


@pytest.mark.parametrize(
    ("value", "text"), [(0.0004, "0.4 ms"), (0.5, "0.5 s"), (75.2, "75 s"), (12345, "12,345 s")]
)
def test_seconds_read_well(value, text):
    assert plots.duration(value) == text


def held_out(*shares, **fields):
    one = judged(*shares, **fields)
    return Shown("x", one, arrays(one))


def test_the_composition_has_a_bar_of_shares_for_every_judged_population():
    one = held_out(0.7, 0.2, 0.1, 0)
    bars = plots.composition(one).data
    assert [bar.name for bar in bars] == ["new", "copies", "averages", "broken"]
    assert bars[0].y[:2] == ("pdiff", "reference")
    assert set(bars[0].y[2:]) == set(one.record.controls)
    np.testing.assert_allclose([bar.x[0] for bar in bars], [70, 20, 10, 0])
    np.testing.assert_allclose(bars[0].customdata[0], [60, 80])
    np.testing.assert_allclose(sum(np.array(bar.x) for bar in bars), 100)


def test_without_a_reference_there_is_no_composition_and_its_text_is_no_markup():
    assert plots.composition(shown()) is None
    text = plots.composition(held_out(generator__name=MARKUP)).to_json()
    assert "<script>" not in text
    assert "\u202e" not in text


def test_the_reference_stands_beside_the_originals():
    one = held_out()
    assert traces(plots.score_against_similarity([one]))["reference"].visible is True
    assert "reference<br>validation" in {trace.x[0] for trace in plots.distributions([one]).data}


def test_a_twin_has_the_colour_of_its_control():
    assert plots.colour("aligned average") == plots.colour("average")


def test_a_single_model_is_drawn(tmp_path):
    one = record(scores__generated=population(0.93),
                 similarity__generated_generated=None, novelty__collapsed=None)  # fmt: skip
    made = Shown("average", one, arrays(one))
    for name, draw in FIGURES.items():
        assert draw(made) is not None, name
    assert isinstance(load.load([one.write(tmp_path).parent])[0], pd.DataFrame)
