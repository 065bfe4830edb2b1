import shlex
from pathlib import Path

import pandas as pd
import pytest
import typer.main

from bench import cli, plugins
from bench.records.paper import logs, tables
from bench.records.request import Request
from leaderboard import load, paper
from tests.records import population, record

ROWS = [(table, row) for table in tables().values() for row in table.row]
RUNS = [(t.id, r.label[-1], t.settings(r)) for t, r in ROWS if t.settings(r)]
# Typed from the printed tables, not from the file: (table, label, numbers).
GOLDEN = [
    ("1", ["CIFAR-100", "ResNet-18"], [76.7, 76.7, 76.9]),
    ("1", ["Flowers", "ResNet-50"], [33.7, 33.9, 38.1]),
    ("1", ["ImageNet-1K", "ViT-Base"], [84.5, 84.5, 84.7]),
    ("1", ["STL-10", "ConvNeXt-T"], [98.2, 98.0, 98.2]),
    ("2a", ["200"], [76.9, 72.4, 75.6]),
    ("2b", ["BN-layer14 to 16"], [76.9, 72.2, 75.5]),
    ("2c", ["no noise"], [76.7, 65.8, 65.0]),
    ("3a", ["CIFAR-100"], [57.2, 57.2, 57.3]),
    ("3b", ["MNIST"], [85.3, 85.2, 85.4]),
    ("5", ["ConvNet-3", "FC", "MNIST"], [17, 98.0, 90.1, 93.6, 70.2, 1375]),
    ("6b", ["BN"], [99.3, 86.7, 99.1]),
    ("7a", ["50"], [76.5, 63.0, 71.8]),
    ("7b", ["500"], [76.8, 72.3, 75.4]),
    ("8a", ["1e-2"], [76.3, 70.4, 74.4]),
    ("8b", ["1e-0"], [76.7, 74.0, 75.0]),
    ("8c", ["linear"], [76.6, 76.6, 47.3, 71.1]),
    ("9c", ["100"], [76.8, 75.9, 76.5]),
    ("10", ["FCOS"], [39.1, 39.1]),
    ("11", ["mean IoU"], [60.5, 60.7]),
    ("12", ["DDPM UNet"], [3.17, 3.19]),
]


@pytest.mark.parametrize(("table", "label", "numbers"), GOLDEN)
def test_numbers_are_the_printed_ones(table, label, numbers):
    (row,) = [row for row in tables()[table].row if row.label == label]
    assert row.paper == numbers


def test_every_table_is_whole():
    sizes = {name: len(table.row) for name, table in tables().items()}
    assert sizes["1"] == 48
    assert {n for n, size in sizes.items() if size == 5} == {
        "2a",
        "2c",
        "6a",
        "6b",
        "6c",
        "7a",
        "7b",
    }
    for table, row in ROWS:
        assert len(row.paper) == len(table.columns)
        assert len(row.label) == len(table.head)


@pytest.mark.parametrize(("table", "label", "settings"), RUNS)
def test_every_command_names_what_exists(table, label, settings):
    words = shlex.split(paper.command(settings))
    assert words[:4] == ["python", "-m", "bench", "run"]
    command = typer.main.get_command(cli.app).commands["run"]
    command.make_context("run", words[4:], resilient_parsing=False)
    assert settings["task"] in plugins.tasks()
    asked = Request.named(settings)
    plugins.load_task(asked.task, "paper", asked.task_settings)  # refuses what it does not know
    plugins.construct(
        plugins.load_generator(asked.generator), asked.generator_settings, "hyperparameter"
    )


def test_logs_are_the_62_and_every_named_one_is_there():
    assert len(logs()) == 62
    assert {row.log for _, row in ROWS if row.log} <= set(logs())
    assert float(logs()["numberckpt_200"]["g_max"]) == pytest.approx(0.7751, abs=1e-4)
    for _, row in ROWS:
        if row.log and row.run.get("arch"):
            assert row.log.endswith(row.run["arch"].replace("_", ""))


# Our records -----------------------------------------------------------------------------------

CELL = {
    "task__name": "cifar100", "task__arch": "resnet18", "task__layers": "last-norms:2", "zoo__track": "trajectory",
    "protocol__preset": "paper",
    "command": "python -m bench run --task cifar100 --generator pdiff --arch resnet18 --preset paper",
}  # fmt: skip


def frame_of(*fields):
    """Rows of runs, without reading files: their K need not fit their scores."""
    rows = []
    for number, own in enumerate(fields):
        k = own.get("k", 200)
        own = {name: value for name, value in own.items() if name != "k"}
        one = record(**{"id": f"{number:016x}", "protocol__seed": number, **CELL, **own})
        rows.append(load.summary(one, Path(f"{number}.json")) | {"k": k, "board": one.key})
    return pd.DataFrame(rows, columns=[*load.COLUMNS, "board"])


def cells(table, label, frame):
    shown = paper.shown(tables()[table], frame)
    return shown[shown.iloc[:, : len(label)].eq(label).all(axis=1)].iloc[0]


LABEL = ["CIFAR-100", "ResNet-18"]


def test_seeds_of_the_papers_setting_are_pooled():
    cell = cells("1", LABEL, frame_of({}, {"scores__generated": population(0.9, 0.93)}))
    assert cell["ours: best"] == f"{(94 + 93) / 2:.2f}"
    assert cell["ours: original"] == "92.00"
    assert cell["ours: ensemble"] == "93.00"
    assert (cell["ours: seeds"], cell["ours: setting"]) == ("2", "the paper's")
    assert cell["paper: best"] == "76.9"
    assert cell["log: best"] == "77.55"
    assert "log: ensemble" not in cell


@pytest.mark.parametrize(
    "fields",
    [
        {"task__arch": "resnet50"},
        {"task__layers": "all"},
        {"generator__name": "vae"},
        {"k": 50},
        {"generator__aligned": True},
        {"command": CELL["command"] + " --set input_noise=0"},
    ],
)
def test_another_run_fills_no_cell(fields):
    table = tables()["1"]
    assert cells("1", LABEL, frame_of(fields))["ours: seeds"] == ""
    assert any(
        label == "CIFAR-100, ResNet-18" for label, _ in paper.missing(table, frame_of(fields))
    )


def test_a_run_at_another_setting_is_shown_and_marked_and_still_missing():
    command = CELL["command"].replace("--preset paper", "--set task.val_size=9 --set task.epochs=5")
    frame = frame_of({"protocol__preset": "quick", "command": command})
    assert cells("1", LABEL, frame)["ours: setting"] == "quick preset, val_size=9, epochs=5"
    commands = dict(paper.missing(tables()["1"], frame))
    assert commands["CIFAR-100, ResNet-18"] == CELL["command"]


def test_the_papers_setting_wins_over_another():
    command = CELL["command"].replace("--preset paper", "")
    quick = {"protocol__preset": "quick", "command": command, "key": "b" * 16}
    assert cells("1", LABEL, frame_of(quick, {}))["ours: setting"] == "the paper's"


def test_a_preset_of_the_generators_own_is_the_last_choice():
    command = CELL["command"].replace("--preset paper", "{}")
    others = [
        {"protocol__preset": preset, "command": command.format(said), "key": letter * 16}
        for preset, said, letter in (("official", "--preset official", "a"), ("quick", "", "b"))
    ]
    assert cells("1", LABEL, frame_of(*others))["ours: setting"] == "quick preset"
    assert cells("1", LABEL, frame_of(others[0]))["ours: setting"] == "official preset"


def test_hyperparameters_choose_the_row():
    frame = frame_of({"command": CELL["command"] + " --set latent_noise=0"})
    assert cells("2c", ["+ para. noise"], frame)["ours: seeds"] == "1"
    assert cells("2c", ["no noise"], frame)["ours: seeds"] == ""
    assert cells("2a", ["200"], frame)["ours: seeds"] == ""


def test_rows_of_originals_take_the_originals_numbers():
    cell = cells("2b", ["original models"], frame_of({"task__layers": "norms:16-18"}))
    assert (cell["ours: best"], cell["ours: avg."], cell["ours: med."]) == (
        "92.00",
        "91.00",
        "91.00",
    )


def test_nothing_of_ours_leaves_the_papers_numbers():
    empty = pd.DataFrame(columns=[*load.COLUMNS, "board"])
    for table in tables().values():
        shown = paper.shown(table, empty)
        assert len(shown) == len(table.row)
        assert len(paper.missing(table, empty)) == sum(bool(table.settings(r)) for r in table.row)
