import functools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from bench import declared
from bench.errors import printable
from bench.records import side
from leaderboard import app, shared
from tests.records import (
    BASE,
    CONTROLS,
    MARKUP,
    content,
    distances,
    judged,
    outcomes,
    parsed,
    population,
    record,
    seed,
    written,
)

APP = Path(app.__file__)
REPOSITORY = APP.parents[1]
HASH = re.compile("[0-9a-f]{16}|[0-9a-f]{64}")
PAGES = tuple(app.TITLES)
OF_RUNS = ("compare", "similarity", "speed", "run")
installed_components = functools.cache(manifest_scanner.scan_component_manifests)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Opens a page on the records of a folder, without those that are shipped."""
    # Streamlit looks through every installed package for each page, and leaves the page as the main module: processes
    # that a later test starts would import it.
    monkeypatch.setattr(manifest_scanner, "scan_component_manifests", installed_components)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    folder = tmp_path / "records"
    folder.mkdir()
    monkeypatch.setattr(shared, "SHIPPED", tmp_path / "none")
    monkeypatch.setattr(sys, "argv", ["app.py", str(folder)])
    shared._load.clear()

    def run(name="leaderboard", query=None, contents=()):
        for number, text in enumerate(contents):
            (folder / f"{number}.json").write_text(text)
        test = AppTest.from_file(str(APP), default_timeout=30)
        for key, value in (query or {}).items():
            test.query_params[key] = value
        test.run()
        if name != "leaderboard":
            test.switch_page(f"views/{name}.py").run()
        assert not test.exception, test.exception
        return test

    run.folder = folder
    return run


def arrays(one):
    """A whole side file for a made record."""
    rng = np.random.default_rng(0)
    made = outcomes(one, np.arange(797) % 10 > 0)
    for name, scores in one.populations.items():
        made[f"nearest.{name}"] = rng.random(len(scores.values)).astype(np.float16)
        made[f"train.{name}"] = rng.random(len(scores.values)).astype(np.float32)
    made["iou"] = np.ones((5, 5), np.float16)
    made["iou_originals"] = np.array([3], np.int32)
    for kind in ("map", "latent"):
        for name in ("original", "generated", "noise 0.1"):
            made[f"{kind}.{name}"] = rng.random((3, 2)).astype(np.float16)
    made["map_path"] = rng.random((2, 4, 2)).astype(np.float16)
    for name in ("original", "generated", "random"):
        made[f"weights.{name}"] = rng.random((2, 6)).astype(np.float16)
    made["weights_index"] = np.arange(6, dtype=np.int32)
    made["curve"] = np.array([[0.1, 0.5], [1.0, 0.92]], np.float32)
    return made


def whole(folder, *records):
    for one in records:
        written(folder, one, arrays(one))


def shown(test):
    return test.dataframe[0].value


TWO = [
    json.dumps(content()),
    json.dumps(content(key="b" * 16, task__name="mnist", task__arch="mlp3", zoo__track="seeds")),
]


# Every page ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_an_empty_folder_says_how_to_make_a_record(page, name):
    test = page(name)
    assert "python -m bench run" in test.code[0].value


@pytest.mark.parametrize("name", PAGES)
def test_one_record_with_its_side_file(page, name):
    whole(page.folder, record())
    test = page(name)
    assert test.title[0].value
    assert not test.warning
    assert not [note for note in test.info if "side file" in note.value]


@pytest.mark.parametrize("name", OF_RUNS)
def test_a_missing_side_file_is_said_and_hides_nothing_else(page, name):
    test = page(name, contents=[json.dumps(content())])
    assert any("no side file" in note.value for note in test.info)
    assert test.dataframe or test.get("plotly_chart")


@pytest.mark.parametrize("name", OF_RUNS)
def test_filters_that_leave_nothing_say_so(page, name):
    test = page(query={"task": "mnist", "arch": "convnet3"}, contents=TWO)
    assert "No records match" in test.info[0].value
    test.switch_page(f"views/{name}.py").run()
    assert not test.exception


@pytest.mark.parametrize("name", ["compare", "similarity", "speed"])
def test_runs_of_other_boards_stand_side_by_side_with_a_warning(page, name):
    one, other = record(), record(id="1" * 16, key="b" * 16, zoo__hash="9" * 64)
    whole(page.folder, one, other)
    test = page(name)
    assert not test.warning
    runs_of(test).set_value([one.id, other.id]).run()
    assert not test.exception
    assert "cannot be ranked" in test.warning[0].value
    assert test.query_params["run"] == [one.id, other.id]


@pytest.mark.parametrize("name", OF_RUNS)
def test_the_address_names_the_runs(page, name):
    runs = [seed(number, 0.8, 0.9) for number in range(3)]
    whole(page.folder, *runs)
    test = AppTest.from_file(str(APP), default_timeout=30)
    test.query_params["run"] = runs[2].id
    test.run()
    test.query_params["run"] = runs[2].id
    test.switch_page(f"views/{name}.py").run()
    assert not test.exception
    widget = test.selectbox[0] if name == "run" else runs_of(test)
    assert widget.value in (runs[2].id, [runs[2].id])


def runs_of(test):
    return next(widget for widget in test.multiselect if widget.label == "Runs")


@pytest.fixture
def two_boards(page):
    """A board with one record, and a larger one that comes after it in every list."""
    large = {"key": "f" * 16, "zoo__hash": "f" * 64, "task__name": "z"}
    slow = {"generator__name": "slow", "timing__fit_s": 9.0}
    whole(
        page.folder,
        record(id="1" * 16, task__name="a"),
        record(id="2" * 16, **large),
        record(id="3" * 16, **large, **slow),
    )
    return page


def test_the_leaderboard_opens_with_the_largest_board(two_boards):
    assert two_boards().selectbox[0].value == "f" * 16


def test_a_page_of_runs_opens_with_what_learned_longest(two_boards):
    assert runs_of(two_boards("similarity")).value == ["3" * 16]


def test_compare_opens_with_one_run_of_every_generator(two_boards):
    assert runs_of(two_boards("compare")).value == ["3" * 16, "2" * 16]


def test_compare_opens_with_what_an_ablation_was_taken_from(page):
    command = "python -m bench run --task digits --generator pdiff"
    settings = {"noise": 0.1}
    written(
        page.folder,
        record(
            id="1" * 16,
            generator__hyperparameters={"noise": 0},
            command=f"{command} --set noise=0",
            timing__fit_s=1e6,
        ),
    )
    written(
        page.folder,
        record(id="2" * 16, generator__hyperparameters=settings, command=command),
    )
    offered = runs_of(page("compare"))
    assert offered.value == ["2" * 16]
    assert set(offered.options) == {"pdiff seed 0", "pdiff, noise=0 seed 0"}


def boards_of(test):
    return next(widget for widget in test.selectbox if widget.label == "Board")


PLAIN = "<script>[a](evil.test) $y$ :red[z] `c`"  # what the name of a file may be
BOUND = ("created", "file")  # text of which the schema says what it is


def strings(tree, path=()):
    """Where a record has text that its schema leaves free."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from strings(value, (*path, name))
        elif isinstance(value, str) and not HASH.fullmatch(value) and name not in BOUND:
            yield "__".join((*path, name))


@pytest.mark.parametrize("name", PAGES)
def test_markup_in_any_text_of_a_record_stays_text(page, name):
    fields = dict.fromkeys(strings(BASE), MARKUP)
    fields["command"] = f"{BASE['command']} --set {shlex.quote(f'{MARKUP}={MARKUP}')}"
    assert {"command", "task__name", "generator__name", "timing__device"} <= set(fields)
    named = {part: {"file": PLAIN, "sha256": "4" * 64} for part in ("zoo", "generated")}
    fields["command"] = shlex.join(
        ["python", "-m", "bench", "run", "--task", MARKUP, "--generator", MARKUP]
    )
    made = record(**fields, artifacts=named, generator__hyperparameters={MARKUP: MARKUP})
    whole(page.folder, made)
    (page.folder / "bad.json").write_text(json.dumps({**json.loads(made.to_json()), MARKUP: 1}))
    test = page(name)
    assert test.expander[-1].label == "Left out: 1"
    assert not any(getattr(item, "allow_html", False) for item in [*test.markdown, *test.caption])
    for item in [*test.markdown, *test.caption, *test.subheader, *test.header, *test.info]:
        bare = re.sub(r"(`+) .*? \1", "", item.value, flags=re.DOTALL)  # code spans are verbatim
        assert "<script>" not in bare
        assert "evil.test" not in bare
    for chart in test.get("plotly_chart"):
        assert "<script>" not in chart.proto.spec
    assert "\u202e" not in str(test.main) + str(test.sidebar)


# The leaderboard -------------------------------------------------------------------------------


def test_one_record_is_a_table_with_its_command(page):
    whole(page.folder, record(), seed(1, 0.88, 0.9395, generator__name="vae"))
    test = page()
    assert "797 validation examples" in test.markdown[1].value
    table = shown(test).set_index("generator")
    assert table.loc["pdiff", "mean"] == pytest.approx(91)
    assert table.loc["pdiff", "kind"] == "generator"
    assert BASE["command"] in [code.value for code in test.code]


def captions(test):
    return " ".join(note.value for note in test.caption)


def sampled(number, share, models=100, **fields):
    """The record of a generator whose models all get this share of 797 units right, within a little, and its arrays.

    Originals and controls are a hundred models too, but for the average.
    """
    rng = np.random.default_rng(number)
    values = share + 0.005 * rng.standard_normal(models)
    others = population(*(0.9 + 0.005 * rng.standard_normal(100)))
    fields = {
        "id": f"{number:016x}", "zoo__track": "seeds", "protocol__samples": 100, "scores__noise": [],
        "scores__generated": population(*values), "similarity__controls": {}, "zoo__k": 100,
        "scores__original": others, **{f"scores__{name}": others for name in CONTROLS},
        "scores__average": population(0.93),
    } | fields  # fmt: skip
    one = record(**fields)
    made = arrays(one)
    for name in one.populations:
        right = np.arange(797) < 797 * one.populations[name].mean
        made[f"right_mean.{name}"] = (255 * right).astype(np.uint8)
        for statistic in side.STATISTICS:
            made[f"right_{statistic}.{name}"] = np.packbits(right)
    return one, made


def test_ties_share_a_rank_and_one_fit_is_marked(page):
    """Half a validation image apart is a tie, although one is listed first; 80 images are none."""
    for one, made in (
        sampled(1, 0.9),
        sampled(2, 0.9005, generator__name="vae"),
        *(sampled(n, 0.8, generator__name="bad", protocol__seed=n) for n in (3, 4, 5)),
    ):
        written(page.folder, one, made)
    test = page(query={"by": "mean"})
    table = shown(test).set_index("generator")
    assert list(table.loc[["pdiff", "vae"], "rank"]) == ["2*", "2*"]
    assert table.loc["average", "rank"] == "1"
    assert int(table.loc["bad", "rank"]) > 2
    assert "cannot be told apart" in captions(test)
    assert "Ranks with * are of one fit" in captions(test)


def test_best_is_expected_of_as_many_draws_for_every_row(page):
    one, made = sampled(1, 0.9)
    written(page.folder, one, made)
    test = page()
    row = shown(test).set_index("generator").loc["pdiff"]
    assert row["mean"] + 0.5 < row["best"] < 100 * one.generated.best - 0.1
    assert "expected values of 10 models" in captions(test)


def test_rows_without_side_files_have_no_rank_and_it_says_why(page):
    test = page(contents=[json.dumps(content())])
    assert set(shown(test)["rank"]) == {"-"}
    assert "No row has a rank" in captions(test)
    assert "1 of 1 records have no side file" in captions(test)


def test_a_metric_that_is_no_share_is_shown_in_its_own_unit(page):
    table = shown(page(contents=[json.dumps(content(task__metric="FID"))]))
    assert table.loc[table["generator"] == "pdiff", "mean"].iloc[0] == pytest.approx(0.91)


def test_boards_of_several_zoos_are_pooled(page):
    for number, better in enumerate((0.02, 0.03, 0.01)):
        one, made = sampled(
            number, 0.9, key=f"{number:016x}", zoo__hash=f"{number:064x}", zoo__seed=number,
            scores__original=population(*[0.9 - better] * 100),
        )  # fmt: skip
        written(page.folder, one, made)
    test = page()
    assert "Over 3 zoos" in [title.value for title in test.subheader]
    table = next(one.value for one in test.dataframe if "Zoos" in one.value).set_index("Generator")
    assert table.loc["pdiff", "Zoos"] == "3"
    value, low, high = (float(x) for x in re.findall(r"[+-][0-9.]+", table.loc["pdiff", "Mean"]))
    assert value == pytest.approx(2, abs=0.15)
    assert low < 0 < value < high
    assert re.fullmatch(r"[+-][0-9.]+ \(.* to .*\)", table.loc["copy", "Selected"])
    assert "Over" not in " ".join(title.value for title in page("compare").subheader)


@pytest.mark.parametrize("by", ["mean", "speedup", "advantage"])
def test_ranked_by_another_column(page, by):
    test = page(contents=[json.dumps(content())])
    test.selectbox(key="by").set_value(by).run()
    assert not test.exception
    if by == "speedup":
        assert shown(test)["generator"].iloc[0] == "pdiff"
        assert "no test for this column" in captions(test)
        assert set(shown(test)["rank"]) == {"-"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("task", "mnist"), ("arch", "mlp3"), ("track", "seeds"), ("k", "3"), ("generator", "pdiff"),
     ("layers", "last-norms:2"), ("dataset", "digits")],
)  # fmt: skip
def test_a_filter_leaves_what_it_names(page, name, value):
    test = page(contents=TWO)
    assert len(boards_of(test).options) == 2
    test.multiselect(key=name).set_value([value]).run()
    assert not test.exception
    assert len(boards_of(test).options) == (1 if name in ("task", "arch", "track") else 2)


def test_a_filter_of_generators_hides_rows_and_leaves_ranks_as_they_are(page):
    runs = [seed(0, 0.8, 0.9), seed(1, 0.89, 0.9299, generator__name="vae")]
    whole(page.folder, *runs)
    before = shown(page()).set_index("generator")["rank"]
    test = page(query={"generator": "pdiff"})
    after = shown(test).set_index("generator")["rank"]
    assert set(before.index) - set(after.index) == {"vae"}
    assert (after == before[after.index]).all()
    assert after["pdiff"] != "1"


def test_the_address_sets_filters_board_and_row(page):
    runs = [seed(0, 0.8, 0.9), seed(1, 0.85, 0.9, generator__name="vae")]
    whole(page.folder, *runs, record(id="5" * 16, key="c" * 16, zoo__hash="9" * 64))
    test = page(query={"board": "a" * 16})
    table = test.dataframe[0]
    assert {"pdiff", "vae"} <= set(table.value["generator"])
    assert test.query_params["board"] == "a" * 16
    test = page(query={"task": "nothing", "board": "nonsense"})
    assert not test.exception
    assert len(boards_of(test).options) == 2


def test_boards_elsewhere_are_named_with_the_reason(page):
    test = page(contents=TWO)
    assert "Elsewhere: 1 boards" in test.expander[1].label
    assert "architecture mlp3, not convnet3" in test.dataframe[1].value["What differs"].iloc[0]


def test_a_search_leaves_the_rows_that_it_names(page):
    test = page(contents=[json.dumps(content())])
    test.text_input(key="search").set_value("NOISE").run()
    assert set(shown(test)["generator"]) == {"noise 0.1", "noise 0.3"}


def test_columns_can_be_chosen_from_the_address(page):
    whole(page.folder, record())
    assert not page(query={"columns": "Mean"}).exception


def test_a_broken_record_is_listed_beside_the_table(page):
    test = page(contents=[json.dumps(content()), json.dumps(content(timing__fit_s=-1.0))])
    assert not shown(test).empty
    assert test.expander[-1].label == "Left out: 1"
    assert "timing.fit_s" in test.expander[-1].text[0].value


def test_differing_controls_are_named(page):
    other = content(id="1" * 16, protocol__seed=1, scores__average=population(0.92))
    test = page(contents=[json.dumps(content()), json.dumps(other)])
    assert any("score differently" in note.value for note in test.caption)


def test_a_record_that_vanished_meanwhile_is_no_traceback(page):
    written(page.folder, record())
    test = page()
    next(page.folder.rglob("*.json")).unlink()
    test.run()
    assert not test.exception
    assert any("no record at" in note.value for note in test.error)


# The others ------------------------------------------------------------------------------------


def test_compare_draws_every_model_and_the_noise_curve(page):
    whole(page.folder, record())
    test = page("compare")
    charts = test.get("plotly_chart")
    assert len(charts) == 2
    spec = json.loads(charts[0].proto.spec)
    names = [trace["name"] for trace in spec["data"]]
    assert {"original", "pdiff", "original + noise (means)"} <= set(names)


def test_similarity_against_k_needs_two_sizes(page):
    whole(page.folder, record())
    test = page("similarity")
    assert any("--k 1,10,50,200" in code.value for code in test.code)
    other = record(
        id="1" * 16,
        key="b" * 16,
        zoo__hash="9" * 64,
        zoo__k=2,
        scores__original=population(0.9, 0.92),
    )
    whole(page.folder, other)
    shared._load.clear()
    test.run()
    assert not test.exception
    assert not [code for code in test.code if "--k 1,10" in code.value]


def test_speed_says_every_speedup(page):
    whole(page.folder, record())
    text = " ".join(item.value for item in page("speed").markdown)
    assert "10x for sampling alone" in text
    assert "one more model: not applicable: the zoo's own base is there already" in text
    assert "0.317x for 1, 2.22x for 10, 5.56x for 100 models" in text
    assert "pays off from 4 models" in text


def test_speed_has_no_speedup_of_broken_models(page):
    whole(page.folder, record(novelty__verdict="broken"))
    test = page("speed")
    text = " ".join(item.value for item in test.markdown)
    assert "no speed-up: the models are broken" in text
    assert len(test.get("plotly_chart")) == 1


def test_a_run_is_shown_whole(page):
    whole(page.folder, record())
    test = page("run")
    assert BASE["command"] in [code.value for code in test.code]
    populations = shown(test)["population"].tolist()
    assert populations[0] == "original"
    assert populations[-1] == "generated: pdiff"
    facts = {expander.label for expander in test.expander}
    assert {"task", "zoo", "generator", "protocol", "timing", "environment"} <= facts
    assert len(test.get("plotly_chart")) == 3


def judge_of(test):
    """What the page of a run tells of the record's judge, by field."""
    table = next(one for one in test.expander if one.label == "judge").dataframe[0].value
    return dict(zip(table["field"], table["value"], strict=True))


def test_a_run_says_what_its_models_are_made_of(page):
    one = judged(0.7, 0.3, 0, 0)
    whole(page.folder, one)
    test = page("run")
    assert "verdict: novel, most models are like trained ones" in test.text[0].value
    assert "made of 70 % new, 30 % copies" in test.text[0].value
    assert "Made of" in [title.value for title in test.subheader]
    bars = json.loads(test.get("plotly_chart")[0].proto.spec)["data"]
    assert [bar["name"] for bar in bars] == ["new", "copies", "averages", "broken"]
    table = test.dataframe[1].value.set_index("population")
    assert list(table.index[:2]) == ["pdiff", "reference"]
    assert set(table.index[2:]) == set(one.controls)
    assert table.loc["pdiff", "new, %"] == "70 (60 to 80)"
    assert table.loc["average", "variety"] == "-"
    assert "reference" in shown(test)["population"].tolist()
    assert judge_of(test)["word"] == "novel"
    assert test.dataframe[-1].value["what"].tolist() == [
        "zoo",
        "generated",
        "reference",
        "side file",
    ]


def of_rule_1():
    return record(novelty__verdict="copies", novelty__rule=1)


def test_a_run_of_rule_1_says_that_its_word_is_withdrawn(page):
    whole(page.folder, of_rule_1())
    test = page("run")
    assert "copies, by rule 1, which is withdrawn" in test.text[0].value
    assert judge_of(test)["word"] == "copies (withdrawn)"
    assert "Made of" not in [title.value for title in test.subheader]
    assert len(test.get("plotly_chart")) == 3


def test_the_board_and_the_comparison_mark_a_word_of_rule_1(page):
    whole(page.folder, of_rule_1())
    row = shown(page()).set_index("generator").loc["pdiff"]
    assert list(row[["verdict", "new", "quality"]]) == ["copies (withdrawn)", "-", "-"]
    numbers = shown(page("compare")).iloc[:, 0]
    assert numbers["verdict"] == "copies (withdrawn)"
    assert numbers["new, %"] == numbers["mean reference"] == "-"


def test_the_board_and_the_comparison_show_rule_2_with_its_numbers(page):
    one = judged(0, 0.75, 0.25, 0)
    whole(page.folder, one)
    table = shown(page()).set_index("generator")
    assert list(table.loc["pdiff", ["verdict", "new"]]) == ["copies", "0 (0 to 10)"]
    assert list(table.loc["reference", ["kind", "new"]]) == ["reference", "100 (90 to 100)"]
    numbers = shown(page("compare")).iloc[:, 0]
    assert list(numbers[["verdict", "new, %", "resolution of the board"]]) == [
        "copies",
        "0 (0 to 10)",
        "0.9",
    ]


@pytest.mark.parametrize("name", PAGES)
def test_a_record_of_rule_2_is_on_every_page(page, name):
    whole(page.folder, judged())
    test = page(name)
    assert not test.warning
    assert not [note for note in test.info if "side file" in note.value]


def test_every_table_of_the_paper(page):
    whole(page.folder, record())
    test = page("paper")
    for table in ("1", "2", "3", "5", "6", "7", "8", "9", "10", "11", "12"):
        test.selectbox(key="table").set_value(table).run()
        assert not test.exception, table
        assert not test.dataframe[0].value.empty, table
        assert test.code, table  # the commands of what is missing


def test_about_explains_every_control(page):
    whole(page.folder, record())
    text = " ".join(item.value for item in page("about").markdown)
    for control in declared.controls():
        assert f"| {control.name} |" in text
    for word in ("broken", "copies", "averages", "novel", "undecided", "withdrawn"):
        assert word in text


@pytest.mark.parametrize("text", ["a", "`", "a``b`", "`` a", MARKUP])
def test_verbatim_has_a_fence_that_the_text_lacks(text):
    found = re.fullmatch("(`+) (.*) (`+)", shared.verbatim(text), re.DOTALL)
    fence, inner, end = found.groups()
    assert (inner, end) == (printable(text), fence)
    assert fence not in re.findall("`+", text)


def test_no_page_loads_torch():
    program = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        f"sys.argv = ['app.py']; test = AppTest.from_file({str(APP)!r}, default_timeout=60).run()\n"
        f"for name in {PAGES!r}:\n"
        "    test.switch_page(f'views/{name}.py').run(); assert not test.exception, name\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_side_files_of_the_shipped_records_are_small():
    files = list((APP.parent / "results").rglob("*.npz"))
    assert sum(file.stat().st_size for file in files) < 20_000_000
    assert all(file.stat().st_size <= side.LIMIT for file in files)


# Distances of drawn images: lower is better, and no unit is right or wrong ----------------------


@pytest.fixture
def drawn(page):
    """Pages on one record of distances, whose side file has no outcomes."""
    one = parsed(distances())
    kept = {name: array for name, array in arrays(one).items() if not name.startswith("right_")}
    del kept["units"]
    written(page.folder, one, kept)
    return page


def test_a_board_of_distances_ranks_the_lowest_first(drawn):
    test = drawn(query={"by": "mean"})
    means = shown(test)["mean"]
    assert means.iloc[0] == means.min() < means.max() == means.iloc[-1]
    text = " ".join(one.value for one in [*test.markdown, *test.caption])
    assert "fd-convnet3" in text
    assert "(lower is better)" in text
    assert "No row has a rank" in text


def test_runs_of_distances(drawn):
    captions = " ".join(one.value for one in drawn("compare").caption)
    assert "points lie below the curve" in captions
    captions = " ".join(one.value for one in drawn("similarity").caption)
    assert "overlap of image features" in captions
    assert "IoU" not in captions
    populations = drawn("run").dataframe[0].value
    assert populations["mean kd-convnet3"].tolist() == [0.5] * len(populations)
    assert drawn("speed").get("plotly_chart")
