"""A data set and an architecture of somebody else's package: found, listed, run, and part of the code's identity."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import plugins
from bench.contract import registry
from bench.errors import BadRequest, BenchError
from bench.records.record import Record
from bench.system.identity import Code
from tests.packages import install
from tests.standins import call

ROOT = Path(__file__).parents[1]
# One place for each of the two: a function, and its declaration.
STRIPES = """
import torch
from bench.contract.declarations import DataSet
from tasks.data.labelled import ImageData, Split

def load(data_set, data_dir):
    labels = torch.arange(40) % 2
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    images[labels == 0, :, ::2] = 200
    images[labels == 1, :, :, ::2] = 200
    images += torch.randint(50, images.shape, generator=torch.Generator().manual_seed(0)).byte()
    parts = Split(images[:30], labels[:30]), Split(images[30:], labels[30:])
    return ImageData.of(data_set.name, *parts, ("rows", "columns"))

STRIPES = DataSet(
    name="stripes", target="their_data:load", about="rows or columns", form="labels", classes=2,
    channels=1, size=8, train=30, val=10, embedded=True,
)
"""
LINE = """
from torch import nn
from bench.contract.declarations import Architecture

def build(shape, bias):
    inputs = shape.channels * shape.size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, shape.classes, bias=bias))

ARCHITECTURES = {
    "line": Architecture(
        name="line", target="their_networks:build", about="one layer", form="labels",
        options={"bias": True}, recipe={"lr": 0.05, "precision": "float32"},
    )
}
"""
TASK = "tasks.classification:Classification"
SETTINGS = {"dataset": "stripes", "arch": "line", "layers": "all", "batch_size": 10, "epochs": 8}


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """Install the package; return the folder of its modules."""
    (tmp_path / "their_data.py").write_text(STRIPES)
    (tmp_path / "their_networks.py").write_text(LINE)
    points = {"data_sets": {"x": "their_data:STRIPES"}, "architectures": {"y": "their_networks"}}
    install(monkeypatch, tmp_path, "theirs", **points)
    yield tmp_path
    for name in ("their_data", "their_networks"):
        sys.modules.pop(name, None)


def hash_of(**settings) -> str:
    return Code().of(plugins.load_task(TASK, "quick", {**SETTINGS, **settings}), {})


def test_they_are_found_by_the_names_that_they_declare(theirs):
    assert registry.data_set("stripes", "labels").classes == 2
    assert registry.architecture("line", "labels").recipe["lr"] == 0.05
    assert {"digits", "stripes"} < set(registry.data_sets())
    assert not registry.data_sets().broken
    assert not registry.architectures().broken


def test_without_the_package_they_are_unknown():
    assert "stripes" not in registry.data_sets()
    with pytest.raises(BadRequest, match="unknown architecture 'convnet': did you mean 'convnet3'"):
        registry.architecture("convnet", "labels")


def test_one_of_another_form_is_unknown():
    with pytest.raises(BadRequest, match="unknown data set 'coco'"):
        registry.data_set("coco", "labels")
    with pytest.raises(BadRequest, match="unknown architecture 'resnet18'"):
        registry.architecture("resnet18", "boxes")


def test_they_are_listed_and_the_data_set_names_a_task(theirs):
    folders = os.pathsep.join([str(theirs), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "bench", "list"], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": folders},
    )  # fmt: skip
    assert not done.stderr
    tasks, _, rest = " ".join(done.stdout.split()).partition("data sets (")
    assert "stripes rows or columns" in tasks
    assert "stripes labels; 30 + 10 images, 8 pixels a side, 2 classes" in rest
    assert "line one layer" in rest


def test_a_run_uses_them(theirs, tmp_path):
    words = [
        "--set",
        "task.epochs=8",
        "--set",
        "task.batch_size=10",
        "--set",
        "task.dataset=stripes",
    ]
    words += ["--arch", "line", "--layers", "all", "--k", 4, "--samples", 3, "--held-out", 4]
    words += ["--device", "cpu"]
    results = tmp_path / "results"
    assert call("run", "--task", TASK, "--generator", "average", *words, "--results", results) == 0
    (path,) = results.rglob("*.json")
    record = Record.read(path)
    assert (record.task.dataset, record.task.arch) == ("stripes", "line")
    assert record.zoo.d == 64 * 2 + 2
    assert record.task.settings["lr"] == 0.05
    assert record.original.best > 0.8  # chance is a half
    assert call("check", results) == 0


@pytest.mark.parametrize("name", ["their_data.py", "their_networks.py"])
def test_their_code_is_part_of_the_tasks_identity(theirs, name):
    theirs_before, ours_before = hash_of(), hash_of(dataset="fake", arch="mlp3")
    path = theirs / name
    path.write_text(path.read_text() + "\n# changed\n")
    assert hash_of() != theirs_before
    assert hash_of(dataset="fake", arch="mlp3") == ours_before


@pytest.mark.parametrize(
    ("text", "other", "counts"),
    [('"one layer"', '"a layer"', False), ('"bias": True', '"bias": False', True)],
)
def test_what_a_declaration_decides_is_told_and_its_description_is_not(theirs, text, other, counts):
    before = registry.architecture("line", "labels").facts()
    sys.modules.pop("their_networks")
    (theirs / "their_networks.py").write_text(LINE.replace(text, other))
    assert (registry.architecture("line", "labels").facts() != before) is counts


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("data_sets", "their_data:load", "their_data:load is no DataSet"),
        ("data_sets", "their_data:nothing", "cannot import their_data:nothing"),
        ("data_sets", "their_networks", "their_networks has no mapping DATA_SETS"),
        ("architectures", "their_data:STRIPES", "their_data:STRIPES is no Architecture"),
    ],
)
def test_a_broken_one_costs_one_line(theirs, tmp_path, monkeypatch, capsys, kind, value, reason):
    install(monkeypatch, tmp_path / "more", "broken", **{kind: {"z": value}})
    assert call("list") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "the entry point 'z' of the package broken cannot be read" in line
    assert reason in line


def test_a_function_that_returns_something_else_is_named(theirs, tmp_path):
    (tmp_path / "their_data.py").write_text(
        STRIPES.replace(
            '    return ImageData.of(data_set.name, *parts, ("rows", "columns"))',
            "    return parts",
        )
    )
    task = plugins.load_task(TASK, "quick", SETTINGS)
    with pytest.raises(BenchError, match="their_data:load returned tuple, expected ImageData"):
        task.data  # noqa: B018


def test_the_suites_own_code_is_followed_through_declarations():
    task = plugins.load_task("shapes-seg", "quick", {})
    modules = [one.module for one in task.declarations()]
    assert modules == ["tasks.data.masks", "tasks.data.scenes", "tasks.networks.fcn"]
    assert "tasks.data.scenes" in Code().files(type(task), modules)
    assert "tasks.networks.timm_models" not in Code().files(type(task))
