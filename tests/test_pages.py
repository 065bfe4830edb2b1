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
from leaderboard import app, columns, load, shared, table
from leaderboard.sections import methods, reproduction
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
    written,
)

APP = Path(app.__file__)
REPOSITORY = APP.parents[1]
HASH = re.compile("[0-9a-f]{16}|[0-9a-f]{64}")
PAGES = tuple(app.TITLES)
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

    def run(name="overview", query=None, contents=()):
        for number, text in enumerate(contents):
            (folder / f"{number}.json").write_text(text)
        test = AppTest.from_file(str(APP), default_timeout=30)
        for key, value in (query or {}).items():
            test.query_params[key] = value
        if name == "overview":
            test.run()
        else:
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
    counts = {name: len(scores.values) for name, scores in one.populations.items()}
    compared = [min(counts[name], side.IOU_MODELS) for name in ("original", "generated")]
    made["iou"] = np.ones((sum(compared), sum(compared)), np.float16)
    made["iou_originals"] = np.array(compared[:1], np.int32)
    for kind in ("map", "latent"):
        for name in {*side.EMBEDDED} & {*counts}:
            made[f"{kind}.{name}"] = rng.random((counts[name], 2)).astype(np.float16)
    made["map_path"] = rng.random((side.PATHS, 4, 2)).astype(np.float16)
    for name in ("original", "generated", "random"):
        rows = min(counts.get(name, side.HEAT_MODELS), side.HEAT_MODELS)
        made[f"weights.{name}"] = rng.random((rows, 128)).astype(np.float16)
    made["weights_index"] = np.arange(128, dtype=np.int32)
    made["curve"] = np.array([[0.1, 0.5], [0.5, 0.9], [1.0, 0.92]], np.float32)
    return made


def whole(folder, *records):
    for one in records:
        written(folder, one, arrays(one))


def html(test):
    """All HTML of a page."""
    return " ".join(one.proto.body for one in test.get("html"))


def cells(test, which=0):
    """The cells of a table of a page, by the text of each row's first cell and then by heading."""
    tables = [
        body
        for one in test.get("html")
        for body in re.findall("<table>.*?</table>", one.proto.body)
    ]
    heads, rows = re.search("<thead>(.*?)</thead>.*<tbody>(.*)</tbody>", tables[which]).groups()
    names = [bare(head) for head in re.findall("<th .*?>(.*?)</th>", heads)]
    found = {}
    for row in re.findall("<tr .*?</tr>", rows):
        values = [bare(cell) for cell in re.findall("<(?:td|th) .*?>(.*?)</(?:td|th)>", row)]
        found[values[0].removesuffix(" (control)")] = dict(zip(names, values, strict=True))
    return found


def bare(fragment):
    return re.sub(" +", " ", re.sub("<.*?>", " ", fragment)).strip()


def captions(test):
    return " ".join(note.value for note in test.caption)


# Every page ------------------------------------------------------------------------------------


def test_an_empty_folder_says_how_to_make_a_record(page):
    for name in PAGES:
        assert "python -m bench run" in page(name).code[0].value


def address(name, one):
    """What the address of a page has that shows a record, its board, or its generator."""
    asked = {"board": one.key, "generator": one.generator.name, "record": one.id}
    return {name: asked[name]} if name in asked else {}


@pytest.mark.parametrize("make", [record, judged])
def test_every_page_shows_a_record_with_its_side_file(page, make):
    one = make()
    whole(page.folder, one)
    for name in PAGES:
        test = page(name, address(name, one))
        assert not [*test.error, *test.warning]
        assert not [note for note in test.info if "side file" in note.value]
        assert "pdiff" in html(test) or name == "methods"


def test_a_missing_side_file_is_said_and_hides_nothing_else(page):
    text = json.dumps(content())
    test = page("record", {"record": BASE["id"]}, [text])
    assert "No side file" in test.info[0].value
    assert "pdiff" in cells(test, 1)
    test = page("board", contents=[text])
    assert {row["Group"] for row in cells(test).values()} == {"-"}
    assert "No row has a group" in captions(test)
    assert "1 of 1 records have no side file" in captions(test)
    assert test.get("plotly_chart")


@pytest.mark.parametrize("name", ["board", "generator", "record"])
def test_what_is_not_there_is_said_and_nothing_else_is_shown_in_its_place(page, name):
    test = page(name, {name: "zzzz"}, [json.dumps(content())])
    assert f"There is no {name}" in test.error[0].value
    assert "zzzz" in test.error[0].value
    assert test.query_params[name] == "zzzz"
    assert not test.get("plotly_chart")
    assert html(test)  # what there is, to choose from


def test_earlier_addresses_lead_to_the_pages_that_took_their_place(page):
    """Streamlit's own test of an application cannot follow it to another page: the browser's test does."""
    assert set(app.MOVED.values()) <= set(PAGES)
    assert not set(app.MOVED) & set(PAGES)


PLAIN = "<script>[a](evil.test) $y$ :red[z] `c`"  # what the name of a file may be
BOUND = ("created", "file")  # text of which the schema says what it is


def strings(tree, path=()):
    """Where a record has text that its schema leaves free."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from strings(value, (*path, name))
        elif isinstance(value, str) and not HASH.fullmatch(value) and name not in BOUND:
            yield "__".join((*path, name))


def test_markup_in_any_text_of_a_record_stays_text(page):
    fields = dict.fromkeys(strings(BASE), MARKUP)
    assert {"command", "task__name", "generator__name", "timing__device"} <= set(fields)
    named = {part: {"file": PLAIN, "sha256": "4" * 64} for part in ("zoo", "generated")}
    fields["command"] = shlex.join(
        ["python", "-m", "bench", "run", "--task", MARKUP, "--generator", MARKUP]
    )
    made = record(**fields, artifacts=named, generator__hyperparameters={MARKUP: MARKUP})
    whole(page.folder, made)
    (page.folder / "bad.json").write_text(json.dumps({**json.loads(made.to_json()), MARKUP: 1}))
    asked = {"board": made.key, "generator": printable(MARKUP), "record": made.id}
    for name in PAGES:
        test = page(name, {name: asked[name]} if name in asked else {})
        assert test.expander[-1].label == "Left out: 1"
        assert not any(
            getattr(item, "allow_html", False) for item in [*test.markdown, *test.caption]
        )
        for item in [*test.markdown, *test.caption, *test.subheader, *test.header, *test.info]:
            plain = re.sub(
                r"(`+) .*? \1", "", item.value, flags=re.DOTALL
            )  # code spans are verbatim
            assert "<script>" not in plain
            assert "evil.test" not in plain
        assert "<script>" not in html(test)
        here = re.compile(f"({'|'.join(PAGES[1:])})?[?#/]|\\./|methods$")
        assert all(here.match(target) for target in re.findall('href="(.*?)"', html(test)))
        for chart in test.get("plotly_chart"):
            assert "<script>" not in chart.proto.spec
        assert "\u202e" not in str(test.main) + str(test.sidebar)


# The overview ----------------------------------------------------------------------------------


def test_the_overview_answers_in_findings_counts_and_cells(page):
    for one, made in (
        sampled(1, 0.9),
        sampled(2, 0.8, generator__name="vae"),
        sampled(3, 0.9, generator__name="gaussian", command=run("gaussian")),
        sampled(4, 0.9, key="b" * 16, zoo__hash="9" * 64, task__name="mnist"),
    ):
        written(page.folder, one, made)
    test = page()
    text = html(test)
    assert "0 of 2</b>" in text  # boards where p-diff beats the strongest control
    summary = cells(test)
    assert list(summary) == ["pdiff", "vae"]  # a control that was run as a generator is none
    assert summary["pdiff"]["Boards"] == "2 of 2"
    assert summary["vae"]["Against copy: wins-ties-losses"] == "0-0-1"
    matrix = cells(test, 1)
    (mnist,) = [head for head in matrix["vae"] if head.startswith("mnist")]
    assert "--generator vae" in matrix["vae"][mnist]  # the command of an empty cell
    (digits,) = [head for head in matrix["vae"] if head.startswith("digits")]
    assert "copy ▼ -10.0" in matrix["vae"][digits]
    assert [button.proto.label for button in test.get("download_button")] == [
        "Matrix as LaTeX", "Matrix as CSV", "Matrix as Markdown",
    ]  # fmt: skip


# A board ---------------------------------------------------------------------------------------


def run(generator):
    return f"python -m bench run --task digits --generator {generator}"


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


@pytest.fixture
def board(page):
    """A board of p-diff, vae half an image better, and a bad one of three seeds that is the cheapest."""
    bad = {"generator__name": "bad", "timing__speedup": 1e6, "timing__sample_per_model_s": 1e-6}
    for one, made in (
        sampled(1, 0.9),
        sampled(2, 0.9005, generator__name="vae"),
        *(sampled(n, 0.8, **bad, protocol__seed=n) for n in (3, 4, 5)),
    ):
        written(page.folder, one, made)
    return page


def test_a_board_groups_its_rows_and_shows_the_details_of_one(board):
    """Half a validation image apart is a tie, although one is listed first; 80 images are none."""
    row = table.row_names(load.load([board.folder])[0])[0]
    test = board("board", {"row": row})
    assert "797 validation examples" in html(test)
    found = cells(test)
    assert found["pdiff"]["Group"] == found["vae"]["Group"] == "B*"
    assert found["average"]["Group"] == "A"
    assert found["bad"]["Group"] > "B*"
    letters = [one["Group"].rstrip("*") for one in found.values() if one["Group"] != "-"]
    assert letters == sorted(letters)
    assert float(found["pdiff"]["Mean"]) == pytest.approx(90, abs=0.2)
    assert "noise 0.1" not in found
    assert "cannot be told apart" in captions(test)
    assert "Groups with * are of one fit" in captions(test)
    assert "Details of the chosen row" in [title.value for title in test.subheader]
    assert "python -m bench run" in html(test)
    # By cost what is bad is not first, unless the reader says that anything will do.
    test.selectbox(key="by").set_value("speedup").run()
    names = list(cells(test))
    assert names.index("bad not as good") > names.index("pdiff")
    test.selectbox(key="least-True").set_value("").run()
    assert next(iter(cells(test))) == "bad"
    assert "no test for this column" in captions(test)
    assert not test.exception


def test_best_is_expected_of_as_many_draws_for_every_row(board):
    test = board("board", {"columns": ["Mean", "Best"]})
    row = cells(test)["pdiff"]
    assert float(row["Mean"]) + 0.5 < float(row["Best"])
    assert "expected values of 10 models" in captions(test)
    test.toggle(key="every").set_value(True).run()
    assert not test.exception
    for tab in ("Copying", "Distributions"):
        test.session_state["tab"] = tab
        assert not test.run().exception
        assert len(test.get("plotly_chart")) >= (1 if tab == "Distributions" else 2)


def test_boards_of_several_zoos_are_pooled_and_a_board_is_chosen_by_the_address(page):
    for number, better in enumerate((0.02, 0.03, 0.01)):
        one, made = sampled(
            number, 0.9, key=f"{number:016x}", zoo__hash=f"{number:064x}", zoo__seed=number,
            scores__original=population(*[0.9 - better] * 100),
        )  # fmt: skip
        written(page.folder, one, made)
    test = page("board", {"board": f"{1:016x}"})
    assert test.query_params["board"] == f"{1:016x}"
    assert len(set(test.selectbox[0].options)) == 3  # no two boards of one name
    assert "Over 3 zoos" in [title.value for title in test.subheader]
    found = next(
        one for one in map(functools.partial(cells, test), range(4)) if "Zoos" in one["pdiff"]
    )
    assert found["pdiff"]["Zoos"] == "3"
    value, low, high = (float(x) for x in re.findall(r"[+-][0-9.]+", found["pdiff"]["Mean"]))
    assert value == pytest.approx(2, abs=0.15)
    assert low < 0 < value < high
    assert "Elsewhere: 2 boards" in test.expander[0].label
    test.selectbox[0].set_value(f"{2:016x}").run()
    assert test.query_params["board"] in (f"{2:016x}", [f"{2:016x}"])


def test_what_cannot_be_read_is_said(page):
    other = content(id="1" * 16, protocol__seed=1, scores__average=population(0.92))
    texts = [json.dumps(one) for one in (content(), other, content(timing__fit_s=-1.0))]
    test = page("board", contents=texts)
    assert "pdiff" in cells(test)
    assert test.expander[-1].label == "Left out: 1"
    assert "timing.fit_s" in test.expander[-1].text[0].value
    assert "score differently" in captions(test)
    (page.folder / "1.json").unlink()
    test.run()
    assert not test.exception
    assert any("no record at" in note.value for note in test.error)


def test_a_board_of_distances_puts_the_lowest_first_in_its_own_unit(page):
    one = parsed(distances())
    kept = {name: array for name, array in arrays(one).items() if not name.startswith("right_")}
    del kept["units"]
    written(page.folder, one, kept)
    test = page("board", {"tab": "Copying"})
    means = [float(row["Mean"]) for row in cells(test).values()]
    assert means == sorted(means)
    assert means[0] < 1
    assert "(lower is better)" in html(test)
    populations = cells(page("record", {"record": one.id}), 1)
    assert {row["mean kd-convnet3"] for row in populations.values()} == {"0.5"}


# A record --------------------------------------------------------------------------------------


def test_a_record_says_where_its_number_comes_from_and_what_its_models_are_made_of(page):
    one = judged(0.7, 0.3, 0, 0, scores__copy=population(0.9))
    whole(page.folder, one)
    test = page("record", {"record": one.id})
    text = html(test)
    assert "verdict: novel, most models are like trained ones" in text
    assert "made of 70 % new, 30 % copies" in text
    assert f"python -m bench verify {one.key}/{one.id}.json --from-seed" in text
    assert BASE["command"] in text
    assert "claimed: as its author sent it" in text
    scores = cells(test, 1)
    assert set(scores) == {"pdiff", "original", "reference", *one.controls}
    assert (
        scores["copy"]["95 %"] == scores["average"]["95 %"] == "-"
    )  # of a single model there is none
    made_of = cells(test, 2)
    assert list(made_of)[:2] == ["pdiff", "reference"]
    assert made_of["pdiff"]["Made of"] == "70 % new, 30 % copies"
    assert made_of["average"]["Variety"] == "-"
    assert "<dt>word</dt><dd>novel (resolution 0.90)</dd>" in text
    bars = json.loads(test.get("plotly_chart")[0].proto.spec)["data"]
    assert [bar["name"] for bar in bars] == ["new", "copies", "averages", "broken"]
    assert test.get("plotly_chart")[0].proto.alt


def test_a_word_of_rule_1_is_withdrawn_wherever_it_stands(page):
    one = record(novelty__verdict="copies", novelty__rule=1)
    whole(page.folder, one)
    text = html(page("record", {"record": one.id}))
    assert "copies, by rule 1, which is withdrawn" in text
    assert "<dd>copies (withdrawn)</dd>" in text
    assert cells(page("board"))["pdiff"]["Verdict"] == "copies (withdrawn)"
    assert "copies</a></span><small>(withdrawn)" in html(page())
    test = page("generator", {"generator": "pdiff"})
    (across,) = cells(test).values()
    assert across["Verdict"] == "copies (withdrawn)"
    assert "<dt>Against copy</dt><dd>0 wins, 1 ties, 0 losses</dd>" in html(test)


# The others ------------------------------------------------------------------------------------


def test_every_table_of_the_paper_has_ours_before_theirs(page):
    whole(page.folder, record())
    test = page("reproduction")
    assert [row["Same setting?"] for row in cells(test).values()] == [
        "no: quick preset, smaller data"
    ] * 3
    for number in ("1", "2", "3", "5", "6", "7", "8", "9", "10", "11", "12"):
        found = reproduction.table(number, shared.runs())
        heads = re.findall("<th scope=.col.*?>(.*?)</th>", found)
        ours, theirs = (
            [i for i, head in enumerate(heads) if head.startswith(of)] for of in ("ours", "paper")
        )
        assert theirs
        assert not ours or min(ours) < min(theirs)
        assert "python -m bench run" in found


def test_methods_explain_every_control_column_and_word():
    text = methods.page()
    for control in declared.controls():
        assert f"<td>{control.name}</td>" in text
    for word in ("broken", "copies", "averages", "novel", "undecided", "withdrawn", "Resolution"):
        assert word in text
    for column in columns.COLUMNS:
        assert not column.help or f'id="{column.name}"' in text


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
