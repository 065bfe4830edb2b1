import copy
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats
from streamlit.testing.v1 import AppTest

from bench.record import Record
from leaderboard import app, table

APP = Path(app.__file__)
REPOSITORY = APP.parents[1]
CONTROLS = ("average", "copy", "interpolation", "gaussian", "finetune", "greedy_soup")
HASH = re.compile("[0-9a-f]{16}|[0-9a-f]{64}")
MARKUP = (
    "<script>alert(1)</script>[a](https://evil.test) ![i](x) $y$ :red[z] :smile: `c`\u202e\n# h"
)


def population(*values, **fields):
    """The numbers of some scores, higher being better."""
    ordered = sorted(values)
    mean = sum(values) / len(values)
    return {
        "best": ordered[-1], "selected": ordered[-1], "mean": mean, "median": statistics.median(values),
        "worst": ordered[0], "std": None if len(values) == 1 else statistics.stdev(values), "low": mean, "high": mean,
        "values": list(values),
    } | fields  # fmt: skip


def interval(value):
    return {"value": value, "low": value, "high": value}


NOISE = [{"amplitude": a, **population(0.9 - a, 0.95 - a)} for a in (0.1, 0.3)]
ALIKE = {"original": 0.8, "original_max": 0.9, "within": None}
BASE = {
    "schema": 1, "id": "0" * 16, "created": "2026-01-01T00:00:00Z",
    "command": "python -m bench run --task digits --generator pdiff", "key": "a" * 16,
    "task": {
        "name": "digits", "kind": "classification", "dataset": "digits", "dataset_hash": "1" * 64,
        "arch": "convnet3", "layers": "last-norms:2", "metric": "accuracy", "higher_is_better": True,
        "units": "image", "settings": {},
    },
    "zoo": {"hash": "2" * 64, "track": "trajectory", "k": 3, "d": 128, "seed": 0, "base_score": 0.9},
    "generator": {
        "name": "pdiff", "source": "3" * 64, "hyperparameters": {"steps": 10, "lr": 0.1},
        "uses_scores": False, "uses": [], "aligned": False,
    },
    "protocol": {
        "version": 1, "preset": "quick", "samples": 2, "seed": 0, "selection": "train",
        "train_size": 1000, "val_size": 797,
    },
    "scores": {
        "original": population(0.9, 0.91, 0.92), "generated": population(0.88, 0.94), "noise": NOISE,
        **{name: population(0.9, 0.93) for name in CONTROLS}, "average": population(0.93),
    },
    "similarity": {
        "original_original": interval(0.8), "generated_generated": interval(0.9),
        "original_generated": interval(0.85), "original_generated_max": interval(0.95),
        "controls": dict.fromkeys((*CONTROLS, "noise 0.1", "noise 0.3"), ALIKE),
    },
    "novelty": {
        "advantage_over_noise": None, "advantage_over_interpolation": None,
        "advantage_over_gaussian": None, "beyond_noise": 0.0, "nearest_l2_ratio": None,
        "collapsed": True, "verdict": None,
    },
    "timing": {
        "device": "cpu", "collect_s": 1.0, "fit_s": 2.0, "sample_s": 0.2, "sample_per_model_s": 0.1,
        "select_s": 0.1, "score_s": 0.1, "target_score": 0.9, "sgd_s": 1.0, "speedup": 10.0,
        "speedup_amortised": 0.5, "break_even_models": 4, "peak_memory_bytes": 1,
    },
    "environment": {
        "git_commit": None, "git_dirty": None, "python": "3.11", "packages": {}, "cpu": "cpu",
        "gpu": None, "threads": 1,
    },
    "artifacts": {name: {"file": "f", "sha256": "4" * 64} for name in ("zoo", "generated")},
    "tests": None,
}  # fmt: skip


def content(**fields):
    """A valid record as plain data; ``task__name="x"`` changes one field."""
    made = copy.deepcopy(BASE)
    for path, value in fields.items():
        *parents, last = path.split("__")
        place = made
        for parent in parents:
            place = place[parent]
        assert last in place
        place[last] = value
    return made


def record(**fields):
    return Record.model_validate_json(json.dumps(content(**fields)))


def seed(number, *values, **fields):
    """The run of one seed, with the scores of its generated models."""
    return record(id=f"{number:016x}", protocol__seed=number,
                  scores__generated=population(*values), **fields)  # fmt: skip


def cells(frame, kind="generator"):
    return frame[frame["kind"] == kind].reset_index(drop=True)


# Reading ---------------------------------------------------------------------------------------


def test_load_reads_below_every_folder_and_takes_a_copy_once(tmp_path):
    first, second = record(), record(id="1" * 16, protocol__seed=1)
    for folder, one in (("a", first), ("b/deep", first), ("b", second)):
        one.write(tmp_path / folder)
    assert table.load([tmp_path / "a", tmp_path / "b", tmp_path]) == ([first, second], [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not a valid record: the file: Invalid JSON"),
        (json.dumps(content(key="x")), "not a valid record: key: String should match"),
        (json.dumps(BASE | {"extra": 1}), "not a valid record: extra: Extra inputs"),
        (json.dumps(content(timing__fit_s=-1.0)), "timing.fit_s: Input should be greater"),
        ("\udc80", "not a valid record"),
    ],
)
def test_a_broken_record_is_listed_and_hides_nothing(tmp_path, text, reason):
    good = record()
    good.write(tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_bytes(text.encode(errors="surrogateescape"))
    records, broken = table.load([tmp_path])
    assert records == [good]
    assert [item.path for item in broken] == [str(bad)]
    assert reason in broken[0].reason


def test_a_missing_folder_and_what_is_no_file_are_listed(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    _, broken = table.load([tmp_path / "absent", tmp_path])
    assert [item.reason for item in broken] == ["no such folder", "not a file", "not a file"]


def test_a_run_made_again_stands_with_its_newest_record(tmp_path):
    old = record(created="2026-01-01T00:00:00Z")
    new = record(created="2026-01-01T00:00:00+00:00", timing__fit_s=3.0)
    newest = record(created="2026-01-01T00:00:00-01:00", timing__fit_s=4.0)
    for folder, one in (("a", newest), ("b", old), ("c", new)):
        one.write(tmp_path / folder)
    records, broken = table.load([tmp_path])
    assert records == [newest]
    assert len(broken) == 2
    assert all("made again: " + str(tmp_path / "a") in item.reason for item in broken)


# Rows ------------------------------------------------------------------------------------------


def test_rows_of_nothing_have_every_column():
    assert list(table.rows([]).columns) == list(table.COLUMNS)


def test_one_record_gives_its_generator_the_original_and_every_control_best_first():
    one = record()
    frame = table.rows([one])
    assert frame["generator"][0] == "pdiff"
    assert set(cells(frame, "control")["generator"]) == set(one.scores.controls())
    assert len(cells(frame, "original")) == 1
    assert frame["selected"].is_monotonic_decreasing
    row = cells(frame).loc[0]
    assert row["seeds"] == 1
    assert [row[name] for name in ("best", "mean", "worst")] == pytest.approx([0.94, 0.91, 0.88])
    assert row["nearest_iou"] == 0.95
    assert row["collapsed"] == "yes"
    assert (row["seconds_per_model"], row["speedup"], row["speedup_amortised"]) == (0.1, 10.0, 0.5)
    assert (row["device"], row["command"]) == ("cpu", one.command)
    assert (cells(frame, "control")["nearest_iou"] == 0.9).all()
    assert cells(frame, "control")["speedup"].isna().all()


def test_lower_is_better_ranks_the_lowest_first():
    frame = table.rows([record(task__metric="FID", task__higher_is_better=False)])
    assert frame["selected"].is_monotonic_increasing


def test_a_single_model_has_no_interval():
    frame = table.rows([record()]).set_index("generator")
    assert frame.loc["average", ["low", "high"]].isna().all()
    assert frame.loc["copy", ["low", "high"]].notna().all()


def test_seeds_are_pooled_with_students_interval():
    runs = [seed(0, 0.8, 0.9), seed(1, 0.85, 0.95), seed(2, 0.7, 0.9, novelty__collapsed=False)]
    row = cells(table.rows(runs)).loc[0]
    means = [0.85, 0.9, 0.8]
    low, high = stats.t.interval(0.95, 2, loc=0.85, scale=stats.sem(means))
    assert row["seeds"] == 3
    assert row["mean"] == pytest.approx(0.85)
    assert [row["low"], row["high"]] == pytest.approx([low, high])
    assert row["best"] == pytest.approx((0.9 + 0.95 + 0.9) / 3)
    assert row["collapsed"] == "2 of 3"
    assert row["command"].count("\n") == 2


def test_a_number_that_one_seed_lacks_is_missing():
    runs = [seed(0, 0.8, 0.9), seed(1, 0.8, 0.9, timing__speedup=None, novelty__collapsed=None)]
    row = cells(table.rows(runs)).loc[0]
    assert row[["speedup", "collapsed"]].isna().all()
    assert row["speedup_amortised"] == 0.5


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
        adjusted = zip(values, table.holm(values), strict=True)
        assert sorted(v for v, p in adjusted if p <= alpha) == rejected


def test_holm_of_nothing_and_never_above_one():
    assert table.holm([]) == []
    assert table.holm([0.9, 0.8]) == [1.0, 1.0]


def paired(number, wins, losses, p, **fields):
    pair = {"wins": wins, "losses": losses, "p": p}
    return record(id=f"{number:016x}", tests={"best_original": pair, "average": pair}, **fields)


def test_p_values_are_corrected_over_the_generators_of_a_board():
    other = {"generator__name": "vae"}
    frame = cells(table.rows([paired(1, 9, 1, 0.02), paired(2, 12, 1, 0.004, **other)]))
    assert dict(zip(frame["generator"], frame["p_best"], strict=True)) == pytest.approx(
        {"pdiff": 0.02, "vae": 0.008}
    )


def test_a_p_value_holds_for_every_seed_and_for_better_alone():
    seeds = [paired(1, 9, 1, 0.02), paired(2, 8, 2, 0.11, protocol__seed=1)]
    assert cells(table.rows(seeds)).loc[0, "p_best"] == pytest.approx(0.11)
    assert cells(table.rows([paired(1, 1, 9, 0.02)])).loc[0, "p_best"] == 1.0
    assert cells(table.rows([record()]))["p_best"].isna().all()


def test_verdicts_of_seeds():
    words = ["copies", "copies", "averages"]
    runs = [seed(i, 0.8, 0.9, novelty__verdict=word) for i, word in enumerate(words)]
    assert cells(table.rows(runs)).loc[0, "verdict"] == "copies 2 of 3, averages 1 of 3"
    assert cells(table.rows(runs[:2])).loc[0, "verdict"] == "copies"
    assert cells(table.rows([*runs, seed(3, 0.8, 0.9)]))["verdict"].isna().all()


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({"generator__hyperparameters": {"steps": 20, "lr": 0.1}}, ["steps=10", "steps=20"]),
        ({"generator__source": "5" * 64}, ["code 33333333", "code 55555555"]),
        ({"generator__aligned": True}, ["aligned", "not aligned"]),
        ({"timing__device": "cuda"}, [None, None]),
    ],
)
def test_what_is_not_the_same_generator_is_not_pooled(fields, labels):
    frame = cells(table.rows([record(), record(id="1" * 16, protocol__seed=1, **fields)]))
    assert list(frame["seeds"]) == [1, 1]
    assert sorted(frame["generator"]) == [f"pdiff, {x}" if x else "pdiff" for x in labels]


@pytest.mark.parametrize(
    "fields",
    [
        {"key": "b" * 16},
        {"task__name": "mnist"},
        {"task__arch": "mlp3"},
        {"task__layers": "all"},
        {"zoo__track": "seeds"},
        {"zoo__hash": "9" * 64},
        {"protocol__val_size": 100},
        {"task__higher_is_better": False},
    ],
)
def test_what_is_not_comparable_is_never_mixed(tmp_path, fields):
    runs = [record(), record(id="1" * 16, protocol__seed=1, **fields)]
    for number, run in enumerate(runs):
        run.write(tmp_path / str(number))
    records, broken = table.load([tmp_path])
    frame = table.rows(records)
    assert not broken
    assert len(table.boards(records)) == 2
    assert list(cells(frame)["seeds"]) == [1, 1]
    assert len(cells(frame, "original")) == 2


def test_rows_do_not_depend_on_the_order_of_records():
    runs = [seed(number, 0.8, 0.9 + number / 100) for number in range(3)]
    assert table.rows(runs).equals(table.rows(runs[::-1]))


def test_controls_that_differ_are_noticed():
    other = record(id="1" * 16, protocol__seed=1, scores__average=population(0.92))
    assert table.controls_agree([record(), record()])
    assert not table.controls_agree([record(), other])


def test_what_cannot_be_seen_is_spelled_out():
    assert table.plain("a\u202eb\n\x1b\udc80é") == "a\\u202eb\\n\\x1b\\udc80é"


# The page --------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Runs the page on records and files, without those that are shipped."""
    shutil.copy(APP, tmp_path)
    folder = tmp_path / "records"
    folder.mkdir()

    def run(*contents, query=None):
        for number, text in enumerate(contents):
            (folder / f"{number}.json").write_text(text)
        monkeypatch.setattr(sys, "argv", ["app.py", str(folder)])
        test = AppTest.from_file(str(tmp_path / "app.py"), default_timeout=20)
        for name, value in (query or {}).items():
            test.query_params[name] = value
        test.run()
        assert not test.exception
        return test

    return run


def headings(test):
    return [heading.value.replace("` ", "").replace(" `", "") for heading in test.subheader]


TWO = [
    json.dumps(content()),
    json.dumps(content(key="b" * 16, task__name="mnist", task__arch="mlp3", zoo__track="seeds")),
]


def test_an_empty_folder_says_how_to_make_a_record(page):
    test = page()
    assert not test.dataframe
    assert "python -m bench run" in test.code[0].value


def test_one_record_is_one_table_with_its_command(page):
    test = page(json.dumps(content()))
    assert headings(test) == ["digits convnet3 last-norms:2"]
    assert "797 validation examples" in test.caption[0].value
    shown = test.dataframe[0].value
    assert shown.loc[0, "generator"] == "pdiff"
    assert shown.loc[0, "best"] == pytest.approx(94)
    assert test.code[0].value == BASE["command"]


def test_a_metric_that_is_no_share_is_shown_in_its_own_unit(page):
    test = page(json.dumps(content(task__metric="FID")))
    assert test.dataframe[0].value.loc[0, "best"] == pytest.approx(0.94)


@pytest.mark.parametrize(
    ("name", "value"),
    [("task", "mnist"), ("arch", "mlp3"), ("layers", "last-norms:2"), ("track", "seeds")],
)
def test_a_filter_leaves_what_it_names(page, name, value):
    test = page(*TWO)
    assert len(test.dataframe) == 2
    test.multiselect(key=name).set_value([value]).run()
    assert not test.exception
    assert len(test.dataframe) == (2 if name == "layers" else 1)
    assert headings(test)[-1] == "mnist mlp3 last-norms:2"


def test_the_address_sets_filters_and_an_unknown_value_is_dropped(page):
    assert headings(page(*TWO, query={"task": "mnist"})) == ["mnist mlp3 last-norms:2"]
    assert len(page(*TWO, query={"task": "nothing"}).dataframe) == 2


def test_filters_that_leave_nothing_say_so(page):
    test = page(*TWO, query={"task": "mnist", "arch": "convnet3"})
    assert not test.dataframe
    assert "No records match" in test.info[0].value


def test_a_broken_record_is_listed_beside_the_table(page):
    test = page(json.dumps(content()), json.dumps(content(timing__fit_s=-1.0)))
    assert len(test.dataframe) == 1
    assert test.expander[-1].label == "Left out: 1"
    assert "timing.fit_s" in test.expander[-1].text[0].value


def test_differing_controls_are_named(page):
    other = content(protocol__seed=1, scores__average=population(0.92))
    test = page(json.dumps(content()), json.dumps(other))
    assert "score differently" in test.caption[1].value


def strings(tree, path=()):
    """Where a record has text that its schema leaves free."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from strings(value, (*path, name))
        elif isinstance(value, str) and not HASH.fullmatch(value) and name != "created":
            yield "__".join((*path, name))


def test_markup_in_any_text_of_a_record_stays_text(page):
    fields = dict.fromkeys(strings(BASE), MARKUP)
    assert {"command", "task__name", "generator__name", "timing__device"} <= set(fields)
    made = content(**fields, generator__hyperparameters={MARKUP: MARKUP})
    test = page(json.dumps(made), json.dumps({**made, MARKUP: 1}))
    assert not any(getattr(item, "allow_html", False) for item in [*test.markdown, *test.caption])
    assert test.dataframe[0].value["generator"][0].startswith("<script>")
    for item in [*test.subheader, *test.caption]:
        assert app.verbatim(table.plain(MARKUP)) in item.value
    assert "\u202e" not in str(test.main) + str(test.sidebar)


@pytest.mark.parametrize("text", ["a", "`", "a``b`", "`` a", MARKUP])
def test_verbatim_has_a_fence_that_the_text_lacks(text):
    fence, inner, end = re.fullmatch("(`+) (.*) (`+)", app.verbatim(text), re.DOTALL).groups()
    assert (inner, end) == (text, fence)
    assert fence not in re.findall("`+", text)


def test_neither_the_table_nor_the_page_loads_torch():
    program = (
        "import sys; from streamlit.testing.v1 import AppTest; import leaderboard.table\n"
        f"sys.argv = ['app.py']; test = AppTest.from_file({str(APP)!r}, default_timeout=20).run()\n"
        "assert not test.exception; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
