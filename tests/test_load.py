import json

import numpy as np
import pandas as pd
import pytest

from bench.errors import printable
from leaderboard import load, opened
from tests.records import BASE, content, record, seed, written


def paths(frame):
    return [str(path) for path in frame["path"]]


def test_load_reads_below_every_folder_and_takes_a_copy_once(tmp_path):
    first, second = record(), record(id="1" * 16, protocol__seed=1)
    for folder, one in (("a", first), ("b/deep", first), ("b", second)):
        one.write(tmp_path / folder)
    frame, broken = load.load([tmp_path / "a", tmp_path / "b", tmp_path])
    assert list(frame["id"]) == [first.id, second.id]
    assert not broken


def test_nothing_has_every_column(tmp_path):
    frame, broken = load.load([tmp_path])
    assert frame.empty
    assert not broken
    assert [*load.COLUMNS, "board"] == list(frame.columns)


def test_a_row_says_what_the_record_says(tmp_path):
    one = record()
    row = load.load([one.write(tmp_path).parent])[0].iloc[0]
    assert set(load.summary(one, tmp_path)) == set(load.COLUMNS)
    assert row["generated_best"] == one.generated.best
    assert row["average_selected"] == one.populations["average"].selected
    assert row["speedup_amortised_10"] == one.timing.speedup_amortised_10
    assert row["gg"] == one.generated.similarity.within.value
    assert row["collapsed"] == "yes (withdrawn)"
    assert np.isnan(row["advantage"])
    assert json.loads(row["hyperparameters"]) == one.generator.hyperparameters
    assert row["board"] == one.key


def test_numbers_are_numbers_even_where_all_are_missing(tmp_path):
    record(timing__sgd_s=None).write(tmp_path)
    frame, _ = load.load([tmp_path])
    assert frame["speedup"].dtype == np.float64
    assert frame["k"].dtype == np.int64


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
    record().write(tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_bytes(text.encode(errors="surrogateescape"))
    frame, broken = load.load([tmp_path])
    assert len(frame) == 1
    assert [item.path for item in broken] == [str(bad)]
    assert reason in broken[0].reason


@pytest.mark.parametrize("line", ["'", "--set", "--set \u202e", "python --set a=b=c"])
def test_a_record_whose_command_is_none_is_listed_with_the_reason(tmp_path, line):
    (tmp_path / "strange.json").write_text(json.dumps(content(command=line)), encoding="utf-8")
    frame, (broken,) = load.load([tmp_path])
    assert frame.empty
    assert "is no command of 'python -m bench run'" in broken.reason
    assert broken.reason.isprintable()


def test_a_missing_folder_and_what_is_no_file_are_listed(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    _, broken = load.load([tmp_path / "absent", tmp_path])
    assert sorted(item.reason for item in broken) == ["no such folder", "not a file", "not a file"]


def test_a_run_made_again_stands_with_its_newest_record(tmp_path):
    old = record(created="2026-01-01T05:00:00+05:00")
    new = record(created="2026-01-01T00:00:00+00:00", timing__fit_s=3.0)
    newest = record(created="2026-01-01T01:00:00Z", timing__fit_s=4.0)
    for folder, one in (("a", newest), ("b", old), ("c", new)):
        one.write(tmp_path / folder)
    frame, broken = load.load([tmp_path])
    assert paths(frame) == [str(tmp_path / "a" / newest.key / f"{newest.id}.json")]
    assert len(broken) == 2
    assert all("made again: " + str(tmp_path / "a") in item.reason for item in broken)


@pytest.mark.parametrize(
    "fields",
    [
        {"task__arch": "mlp3"},
        {"zoo__track": "seeds"},
        {"zoo__hash": "9" * 64},
        {"protocol__val_size": 100},
        {"task__higher_is_better": False},
    ],
)
def test_a_key_that_stands_for_two_things_is_two_boards(tmp_path, fields):
    for number, run in enumerate([record(), record(id="1" * 16, protocol__seed=1, **fields)]):
        run.write(tmp_path / str(number))
    boards = load.load([tmp_path])[0]["board"]
    assert boards.nunique() == 2
    assert all(board.startswith("a" * 16 + "-") for board in boards)


def test_the_order_of_files_does_not_matter(tmp_path):
    for number in range(4):
        seed(number, 0.8, 0.9).write(tmp_path / "x" / str(9 - number))
        seed(number, 0.8, 0.9).write(tmp_path / "y" / str(number))
    first, second = (load.load([tmp_path / name])[0].drop(columns="path") for name in "xy")
    pd.testing.assert_frame_equal(first, second)


def test_what_cannot_be_seen_is_spelled_out():
    assert printable("a\u202eb\n\x1b\udc80é") == "a\\u202eb\\n\\x1b\\udc80é"


def test_a_record_that_cannot_be_shown_costs_no_other(tmp_path, monkeypatch):
    for number in range(5):
        seed(number, 0.5, 0.6).write(tmp_path)
    summary = load.summary

    def odd(one, path):
        if one.protocol.seed == 1:
            raise OverflowError("too\nlarge")
        row = summary(one, path)
        return {**row, "k": 2**70} if one.protocol.seed == 3 else row

    monkeypatch.setattr(load, "summary", odd)
    frame, broken = load.load([tmp_path])
    assert sorted(frame["seed"]) == [0, 2, 4]
    assert [one.reason.partition(" ")[0] for one in broken] == ["OverflowError:", "OverflowError:"]
    assert all(one.reason.isprintable() for one in broken)


def test_arrays_that_no_run_writes_never_reach_a_figure(tmp_path):
    one = record()
    good = {"iou": np.ones((5, 5), np.float16), "iou_originals": np.array([3], np.int32)}
    wrong = {
        "iou_originals": np.array([10**9], np.int32), "iou": np.ones((1, 1), np.float16),
        "map.original": np.zeros((3, 1), np.float16), "curve": np.zeros((5, 1), np.float32),
        "weights_index": np.zeros(3, np.int32), "units": np.array([2000, 10**9], np.int32),
    }  # fmt: skip
    assert set(opened.open_record(written(tmp_path, one, good)).side) == set(good)
    for name, array in wrong.items():
        shown = opened.open_record(written(tmp_path, one, {**good, name: array}))
        assert name not in shown.side
        assert f"'{name}'" in shown.problem
