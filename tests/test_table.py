import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.errors import BadRequest
from bench.records import side
from leaderboard import boards, expected, load, outcomes, pooling, table
from leaderboard.opened import Shown, open_record
from leaderboard.outcomes import Models
from tests.records import judged, parsed, population, record, seed, written
from tests.records import outcomes as made_outcomes


@pytest.fixture
def frame(tmp_path):
    """Records as the table of runs; and the first of them."""

    def read(*records):
        for number, one in enumerate(records):
            one.write(tmp_path / str(number))
        runs, broken = load.load([tmp_path])
        assert not broken
        return runs

    return read


def rows(frame, *records):
    return table.rows(frame(*records), records[0])


def cells(made, kind="generator"):
    return made[made["kind"] == kind].reset_index(drop=True)


def test_one_record_gives_its_generator_the_original_and_every_control(frame):
    one = record()
    made = rows(frame, one)
    assert list(made.columns) == list(table.NAMES)
    assert set(cells(made, "control")["generator"]) == set(one.controls)
    assert len(cells(made, "original")) == 1
    row = cells(made).loc[0]
    assert (row["generator"], row["seeds"], row["runs"]) == ("pdiff", 1, [one.id])
    assert [row[name] for name in ("best", "mean", "worst")] == pytest.approx([0.94, 0.91, 0.88])
    assert row["nearest_iou"] == 0.95
    assert row["collapsed"] == "yes (withdrawn)"
    names = (
        "seconds_per_model",
        "speedup",
        "speedup_amortised_1",
        "speedup_amortised_100",
        "break_even",
    )
    assert [row[name] for name in names] == pytest.approx([0.1, 10, 1 / 3.15, 100 / 18, 4])
    assert math.isnan(row["speedup_marginal"])  # the base is there already
    assert (row["device"], row["command"]) == ("cpu", one.command)
    assert (cells(made, "control")["nearest_iou"] == 0.9).all()
    assert cells(made, "control")["speedup"].isna().all()


def test_a_single_model_has_no_interval(frame):
    made = rows(frame, record()).set_index("generator")
    assert made.loc["average", ["low", "high"]].isna().all()
    assert made.loc["copy", ["low", "high"]].notna().all()


def test_steps_of_one_run_have_no_interval(frame):
    assert (
        rows(frame, record()).set_index("generator").loc["original", ["low", "high"]].isna().all()
    )
    seeds = rows(frame, record(zoo__track="seeds", key="b" * 16))
    assert seeds.set_index("generator").loc["original", ["low", "high"]].notna().all()


def test_seeds_are_pooled_with_students_interval(frame):
    runs = [seed(0, 0.8, 0.9), seed(1, 0.85, 0.95), seed(2, 0.7, 0.9, novelty__collapsed=False)]
    row = cells(rows(frame, *runs)).loc[0]
    low, high = stats.t.interval(0.95, 2, loc=0.85, scale=stats.sem([0.85, 0.9, 0.8]))
    assert row["seeds"] == 3
    assert row["mean"] == pytest.approx(0.85)
    assert [row["low"], row["high"]] == pytest.approx([low, high])
    assert row["best"] == pytest.approx((0.9 + 0.95 + 0.9) / 3)
    assert row["collapsed"] == "yes 2 of 3, no 1 of 3 (withdrawn)"
    assert row["command"].count("\n") == 2


def test_shares_of_seeds_have_students_interval_within_0_and_1(frame):
    runs = [
        judged(new, 1 - new, 0, 0, id=f"{number:016x}", protocol__seed=number)
        for number, new in enumerate((0.5, 0.75))
    ]
    row = cells(rows(frame, *runs)).loc[0]
    assert [row[name] for name in ("new", "new_low", "new_high")] == [0.625, 0.0, 1.0]
    low, high = stats.t.interval(0.95, 2, loc=0.6, scale=stats.sem([0.5, 0.6, 0.7]))
    more = [
        judged(new, 1 - new, 0, 0, id=f"{number:016x}", protocol__seed=number)
        for number, new in enumerate((0.5, 0.6, 0.7))
    ]
    row = cells(rows(frame, *more)).loc[0]
    assert [row[name] for name in ("new", "new_low", "new_high")] == pytest.approx([0.6, low, high])


def test_the_reference_is_a_row_of_its_own(frame):
    made = rows(frame, judged()).set_index("generator")
    assert made.loc["reference", "kind"] == "reference"
    assert made.loc["reference", "new"] == 1
    assert list(made["kind"][:3]) == ["generator", "original", "reference"]
    assert made.loc["original", ["new", "quality"]].isna().all()


def test_a_number_that_one_seed_lacks_is_missing(frame):
    runs = [seed(0, 0.8, 0.9), seed(1, 0.8, 0.9, timing__collect_s=None, novelty__collapsed=None)]
    row = cells(rows(frame, *runs)).loc[0]
    assert row[["speedup_amortised_10", "collapsed"]].isna().all()
    assert row["speedup"] == 10


@pytest.mark.parametrize("count", [1, 2, 7])
def test_holm_rejects_what_the_step_down_method_rejects(count):
    """By its definition: in ascending order, compare with alpha over the number of tests left, until one fails."""
    values = [((7 * i + 3) % 11 + 1) / 200 for i in range(count)]
    for alpha in (0.01, 0.05, 0.1, 0.2):
        rejected = []
        for left, value in zip(range(count, 0, -1), sorted(values), strict=True):
            if value > alpha / left:
                break
            rejected.append(value)
        adjusted = zip(values, pooling.holm(values), strict=True)
        assert sorted(v for v, p in adjusted if p <= alpha) == rejected


def test_holm_of_nothing_and_never_above_one():
    assert pooling.holm([]) == []
    assert pooling.holm([0.9, 0.8]) == [1.0, 1.0]


def paired(number, wins, losses, p, **fields):
    pair = {"wins": wins, "losses": losses, "p": p}
    return record(id=f"{number:016x}", tests={"best_original": pair, "average": pair}, **fields)


def test_p_values_are_corrected_over_the_generators_of_a_board(frame):
    other = {"generator__name": "vae"}
    made = cells(rows(frame, paired(1, 9, 1, 0.02), paired(2, 12, 1, 0.004, **other)))
    assert dict(zip(made["generator"], made["p_best"], strict=True)) == pytest.approx(
        {"pdiff": 0.02, "vae": 0.008}
    )


def test_a_p_value_holds_for_every_seed(frame):
    made = rows(frame, paired(1, 9, 1, 0.02), paired(2, 8, 2, 0.11, protocol__seed=1))
    assert cells(made).loc[0, "p_best"] == pytest.approx(0.11)


def test_a_p_value_is_of_better_alone_and_may_be_unknown(frame):
    made = rows(frame, paired(1, 1, 9, 0.02), seed(7, 0.8, 0.9, generator__name="vae"))
    known = cells(made).set_index("generator")["p_best"]
    assert known["pdiff"] == 1.0
    assert np.isnan(known["vae"])


def ruled(number, word):
    """The run of one seed with a word, of rule 1 where it is marked so."""
    one = seed(number, 0.8, 0.9)
    bare = word and word.removesuffix(" (withdrawn)")
    judge = one.judge.model_copy(update={"word": bare, "rule": 2 if bare == word else 1})
    return one.model_copy(update={"judge": judge})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["copies", "copies", "averages"], "copies 2 of 3, averages 1 of 3 (no reference)"),
        (["copies", "copies"], "copies (no reference)"),
        (["copies", None], None),
        (["copies (withdrawn)", "copies (withdrawn)"], "copies (withdrawn)"),
        (
            ["copies (withdrawn)", "averages (withdrawn)"],
            "copies 1 of 2, averages 1 of 2 (withdrawn)",
        ),
        (["copies (withdrawn)", None], None),
    ],
)
def test_verdicts_of_seeds(frame, words, expected):
    runs = [ruled(i, word) for i, word in enumerate(words)]
    found = cells(rows(frame, *runs)).loc[0, "verdict"]
    assert found == expected if expected else pd.isna(found)


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({"generator__hyperparameters": {"steps": 20, "lr": 0.1}}, ["steps=10", "steps=20"]),
        ({"generator__source": "5" * 64}, ["code 33333333", "code 55555555"]),
        ({"generator__aligned": True}, ["aligned", "not aligned"]),
        ({"timing__device": "cuda"}, ["on cpu", "on cuda"]),
    ],
)
def test_what_is_not_the_same_generator_is_not_pooled(frame, fields, labels):
    made = cells(rows(frame, record(), record(id="1" * 16, protocol__seed=1, **fields)))
    assert list(made["seeds"]) == [1, 1]
    assert made["row"].nunique() == 2
    assert sorted(made["generator"]) == [f"pdiff, {label}" for label in labels]


def test_an_ablation_is_called_by_what_its_command_sets(frame):
    command = "python -m bench run --task digits --generator pdiff"
    with_noise = {"noise": 0.1, "steps": 10, "lr": 0.1}
    made = [
        record(generator__hyperparameters=with_noise, command=command),
        record(
            id="1" * 16,
            generator__hyperparameters={**with_noise, "noise": 0},
            command=f"{command} --set noise=0 --set steps=10 --set task.epochs=3",
        ),
    ]
    assert sorted(cells(rows(frame, *made))["generator"]) == ["pdiff", "pdiff, noise=0"]
    # A third that no command tells from the first: then every difference is named.
    made += [record(id="2" * 16, generator__hyperparameters={**with_noise, "lr": 0.2})]
    assert sorted(cells(rows(frame, *made))["generator"]) == [
        "pdiff, lr=0.1, noise=0",
        "pdiff, lr=0.1, noise=0.1",
        "pdiff, lr=0.2, noise=0.1",
    ]


def test_controls_that_differ_are_noticed(frame):
    assert table.controls_agree(frame(record(), record(id="1" * 16, protocol__seed=1)))
    other = record(id="2" * 16, protocol__seed=2, scores__average=population(0.92))
    assert not table.controls_agree(frame(record(), other))
    reference = judged(id="3" * 16, protocol__seed=3, held=50)
    assert not table.controls_agree(frame(judged(), reference))


# Boards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"task__arch": "mlp3"}, "architecture mlp3, not convnet3"),
        ({"zoo__track": "seeds"}, "track seeds, not trajectory"),
        ({"zoo__hash": "9" * 64}, "other checkpoints"),
        ({"task__dataset_hash": "9" * 64}, "other data"),
        ({"protocol__val_size": 1797}, "validation examples 1,797, not 797"),
        ({}, "another key"),
    ],
)
def test_records_of_other_keys_are_elsewhere_and_it_says_why(frame, fields, why):
    runs = frame(record(), record(id="1" * 16, key="b" * 16, **fields))
    found = boards.records(boards.boards(runs))
    assert len(found) == 2
    mine, other = (next(b for b in found if b["key"] == key * 16) for key in "ab")
    assert boards.why_elsewhere(mine, other) == why


def test_the_board_of_the_newest_protocol_comes_first(frame):
    old = [record(id=str(i) * 16, key="a" * 16) for i in (1, 2)]
    new = judged(id="3" * 16, key="b" * 16)
    found = boards.boards(frame(*old, new))
    assert found["key"].tolist() == ["b" * 16, "a" * 16]
    assert boards.largest(found) == "b" * 16
    titles = [boards.title(board) for board in boards.records(found)]
    assert ["protocol 1" in title for title in titles] == [False, True]


def test_boards_count_records_and_generators(frame):
    runs = [seed(0, 0.8, 0.9), seed(1, 0.8, 0.9), seed(2, 0.8, 0.9, generator__name="vae")]
    (board,) = boards.records(boards.boards(frame(*runs)))
    assert (board["records"], board["generators"], board["k"]) == (3, 2, 3)


# Order and groups ------------------------------------------------------------------------------


def test_the_best_value_comes_first_and_groups_do_not_change_that(frame):
    made = rows(frame, record())
    for higher in (True, False):
        found = table.ordered(made, "mean", higher, {"copy": "A"})
        assert (found["mean"] * (-1 if higher else 1)).is_monotonic_increasing
        assert list(found.loc[found["group"].notna(), "row"]) == ["copy"]
    found = table.ordered(made, "speedup", True, {})
    assert found.loc[0, "generator"] == "pdiff"
    assert found["group"].isna().all()
    assert table.ordered(made, "seconds_per_model", True, {}).loc[0, "generator"] == "pdiff"


def test_what_is_worse_than_a_copy_goes_behind_what_is_cheap(frame):
    bad = seed(7, 0.1, 0.11, generator__name="bad", timing__speedup=1e6)
    made = rows(frame, record(), bad)
    cheapest = table.ordered(made, "speedup", True, {})
    assert cheapest.loc[0, "generator"] == "bad"
    alike = {"copy": "A", made.loc[0, "row"]: "A", made.loc[1, "row"]: "B"}
    found = table.good_first(cheapest, "copy", 1, alike).set_index("generator")
    assert found.loc[["pdiff", "bad", "copy"], "worse"].tolist() == [False, True, False]
    assert found.index[0] == "pdiff"
    assert found["worse"].is_monotonic_increasing
    strict = table.good_first(cheapest, "copy", 1, {}).set_index("generator")["worse"]
    assert strict["pdiff"]  # by the mean alone, where nothing tells what chance does
    assert not table.good_first(cheapest, "not there", 1, {})["worse"].any()


def test_a_control_that_was_run_as_a_generator_is_of_a_kind_of_its_own(frame):
    made = rows(frame, record(), seed(7, 0.9, 0.91, generator__name="noise"))
    assert made.set_index("generator").loc[["pdiff", "noise", "copy"], "kind"].tolist() == [
        "generator", table.CONTROL_RUN, "control",
    ]  # fmt: skip


def test_statistics_of_all_models_give_way_to_expected_values(frame):
    made = rows(frame, record())
    values = {"best": {"copy": 0.5}, "worst": {"copy": 0.25}}
    found = table.at_draws(made, values, 7).set_index("row")
    assert found.loc["copy", ["best", "worst", "mean"]].tolist() == [0.5, 0.25, 0.915]
    assert found["best"].notna().sum() == 1
    assert found[["selected", "median"]].isna().all(axis=None)
    assert set(found["draws"]) == {7}


def test_outcomes_come_from_the_side_file(tmp_path):
    right = np.arange(797) % 10 > 0
    path = written(tmp_path, record(), made_outcomes(record(), right))
    shown = open_record(path)
    assert not shown.problem
    for statistic in expected.STATISTICS:
        np.testing.assert_array_equal(Models(shown, "noise 0.1").paired(statistic), right)


def test_without_a_side_file_or_for_another_metric_there_are_no_outcomes():
    assert Models(Shown("", record(), {}), "copy").paired("best") is None
    other = record(task__metric="FID")
    made = made_outcomes(other, np.ones(797))
    assert Models(Shown("", other, made), "copy").paired("best") is None


@pytest.mark.parametrize("kind", ["bootstrap", "jackknife"])
def test_replicates_come_from_the_side_file_and_group(kind):
    """Ten models each: the copies are better by far, the gaussian by less than models differ."""
    rng = np.random.default_rng(0)
    ten = 0.001 * rng.standard_normal(10)
    scores = {"generated": 0.5, "copy": 0.6, "gaussian": 0.5001}
    made = record(
        task__metric="mAP", protocol__samples=10,
        **{f"scores__{name}": population(*(mean + ten)) for name, mean in scores.items()},
    )  # fmt: skip
    data = json.loads(made.to_json())
    data["task"]["metric"]["resampled"] = kind
    one = parsed(data)
    shared = 0.001 * rng.standard_normal(20)
    arrays = {
        f"resampled_mean.{name}": (mean + shared + 0.0001 * rng.standard_normal(20)).astype("f4")
        for name, mean in scores.items()
    }
    found = outcomes.compare(outcomes.rows_of([("row", Shown("", one, arrays))], one.id), "mean")
    assert found.groups == {"copy": "A", "row": "B", "gaussian": "B"}
    assert found.untested["average"] == outcomes.NO_UNITS
    found = outcomes.compare(outcomes.rows_of([("row", Shown("", one, {}))], one.id), "mean")
    assert not found.groups


def test_one_model_of_what_is_drawn_anew_has_no_group():
    """With so few samples that a control which draws has one model as well, nobody can tell which it is."""
    right = np.arange(797) % 10 > 0
    for samples, ranked in ((4, False), (100, True)):
        values = np.linspace(0.88, 0.94, samples)
        one = record(protocol__samples=samples, scores__generated=population(*values))
        shown = Shown("", one, made_outcomes(one, right))
        found = outcomes.compare(outcomes.rows_of([("row", shown)], one.id), "mean")
        assert "row" in found.groups
        assert ("average" in found.groups) == ranked
        assert ranked or found.untested["average"] == outcomes.SINGLE
        assert found.untested["original"] == outcomes.STEPS  # three of one run


@pytest.mark.parametrize("wrong", ["missing", "other", "damaged"])
def test_a_side_file_that_is_not_the_records_is_a_problem_and_hides_nothing(tmp_path, wrong):
    path = written(tmp_path, record(), made_outcomes(record(), np.ones(797)))
    file = path.with_suffix(".npz")
    if wrong == "missing":
        file.unlink()
    elif wrong == "other":
        side.write(file, made_outcomes(record(), np.zeros(797)))
    else:
        file.write_bytes(b"x")
    shown = open_record(path)
    assert shown.record.id == record().id
    assert shown.side == {}
    assert file.name in shown.problem


def test_the_name_of_a_side_file_leads_nowhere(tmp_path):
    path = written(tmp_path, record(), made_outcomes(record(), np.ones(797)))
    data = json.loads(path.read_text())
    data["artifacts"]["side"]["file"] = "passwd"
    path.write_text(json.dumps(data))
    assert not open_record(path).problem  # the file beside the record is read, whatever the name
    data["artifacts"]["side"]["file"] = "../../../etc/passwd"
    path.write_text(json.dumps(data))
    with pytest.raises(BadRequest, match="not the plain name of a file"):
        open_record(path)
