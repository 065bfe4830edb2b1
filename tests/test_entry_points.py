import dataclasses
import sys

import pytest

from bench.contract import Variant
from bench.errors import BadRequest
from bench.system import entry_points
from bench.system.entry_points import Entry, Named
from tests.packages import install


def read(entry: Entry) -> dict[str, Variant]:
    if entry.single:
        return {entry.name: Variant(entry.value, entry.origin)}
    return entry_points.table(entry, "TASKS", Variant)


def tasks() -> Named[Variant]:
    return entry_points.named("bench.tasks", read)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of somebody else's package, and register it."""

    def write(text: str, value: str = "their_tasks") -> None:
        (tmp_path / "their_tasks.py").write_text(text)
        monkeypatch.delitem(sys.modules, "their_tasks", raising=False)
        install(monkeypatch, tmp_path, "theirs", tasks={"mine": value})

    return write


def test_the_suites_own_come_first():
    first = entry_points.entries("bench.tasks")[0]
    assert (first.value, first.package, first.single) == ("tasks.catalog", "pgen-bench", False)
    assert next(iter(tasks())) == "digits"
    assert not tasks().broken


def test_one_thing_is_named_by_its_entry_point(module):
    module("", "their_tasks:Digits")
    assert tasks()["mine"] == Variant("their_tasks:Digits", "of the package theirs")


def test_a_module_may_declare_several(module):
    module(
        "from bench.contract import Variant\nTASKS = {'a': Variant('a:A', ''), 'b': Variant('b:B', '')}"
    )
    assert {"a", "b", "digits"} < set(tasks())
    assert "mine" not in tasks()


def test_a_name_that_is_taken_is_left_out_and_said(module):
    module(
        "from bench.contract import Variant\nTASKS = {'digits': Variant('a:A', ''), 'b': Variant('b:B', '')}"
    )
    assert tasks()["digits"].target.startswith("tasks.")
    assert "b" in tasks()
    assert tasks().broken == (
        "the entry point 'mine' of the package theirs is left out: 'digits' is taken",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('a\\nb')", r"SystemExit: a\nb"),
        ("", "their_tasks has no mapping TASKS"),
        ("TASKS = 3", "their_tasks has no mapping TASKS"),
        ("TASKS = {'a': 'a:A'}", "TASKS['a'] of their_tasks is no Variant"),
    ],
)
def test_a_broken_one_costs_one_line(module, text, reason):
    module(text)
    found = tasks()
    assert "digits" in found
    (line,) = found.broken
    assert line.startswith("the entry point 'mine' of the package theirs cannot be read (")
    assert reason in line
    assert len(line.splitlines()) == 1
    with pytest.raises(BadRequest, match="unknown task 'mine'") as caught:
        found.find("task", "mine")
    assert line in str(caught.value)


def test_an_entry_is_a_value():
    entry = Entry("a", "b:C", "")
    assert entry.origin == "of an unknown package"
    assert dataclasses.replace(entry, value="b").single is False
