"""Whatever goes wrong in foreign code or with a signal, people read one line that says what and where."""

import inspect
import io
import os
import pickle
import signal
import sys
import types

import pytest
import torch
from rich.console import Console

from bench import plugins
from bench.errors import BadRequest, BenchError, line, unexpected
from bench.records import report
from bench.runs import figures, foreign, verify
from bench.study import local
from tests.records import MARKUP, record
from tests.standins import call

GENERATOR = """
import dataclasses, enum, pathlib, torch
from bench.contract import Generator

class Colour(enum.Enum):
    RED = "red"

@dataclasses.dataclass
class Bad(Generator):
    when: str = ""
    where: pathlib.Path = pathlib.Path("a")
    colour: Colour = Colour.RED

    def __post_init__(self):
        if self.when == "made":
            undefined_name  # line 16

    def fit(self, zoo, *, rng):
        self.vectors_ = zoo.vectors
        return {"fit": lambda: undefined_name, "ended": lambda: exit(3), "eof": lambda: next(eof())}.get(
            self.when, lambda: self)()  # line 21

    def sample(self, n, *, rng):
        if self.when == "sampled":
            raise KeyError("a\\nb\\x1b[31m")  # line 25
        return self.vectors_[:1].repeat(n, 1).requires_grad_()

def eof():
    raise EOFError("the end")  # line 29
    yield
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a generator, which the process does not yet see."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    for name, content in (("mine", GENERATOR), ("unmade", "\nundefined_name"), ("odd", "def f(:")):
        (tmp_path / f"{name}.py").write_text(content)
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


RUN = (
    "run",
    "--task",
    "fake",
    "--k",
    "4",
    "--samples",
    "3",
    "--held-out",
    "0",
    "--set",
    "task.epochs=1",
)


@pytest.mark.parametrize(
    ("target", "when", "expected"),
    [
        ("mine:Bad", "made", "NameError: name 'undefined_name' is not defined ({0}/mine.py, line 16)"),
        ("unmade:Bad", "", "NameError: name 'undefined_name' is not defined ({0}/unmade.py, line 2)"),
        ("odd:Bad", "", "SyntaxError: invalid syntax (odd.py, line 1)"),
        ("./mine:Bad", "", "is a path, expected my_package.module:Class"),
        ("mine.py:Bad", "", "name the class as mine:Bad"),
        ("some/where/mine.py:Bad", "", "name the class as mine:Bad"),
        ("mine:Good", "", "mine:Good is no dataclass of module 'mine'"),
        (":Bad", "", "cannot import ''"),
        ("..mine:Bad", "", "cannot import '..mine'"),
    ],
)  # fmt: skip
def test_a_generator_that_cannot_be_made_is_one_line(here, capsys, target, when, expected):
    assert call(*RUN, "--generator", target, "--set", f"when={when}") in (1, 2)
    (error,) = capsys.readouterr().err.splitlines()
    assert expected.format(here) in error


def test_a_generator_that_fails_is_one_line_that_names_its_file_and_line(here, capsys):
    for when, expected in (
        ("fit", f"NameError: name 'undefined_name' is not defined ({here}/mine.py, line 20)"),
        ("ended", "a plugin ended the process: SystemExit: 3"),
        ("eof", f"EOFError: the end ({here}/mine.py, line 29)"),
        ("sampled", f"KeyError: 'a\\nb\\x1b[31m' ({here}/mine.py, line 25)"),
    ):
        assert call(*RUN, "--generator", "mine:Bad", "--set", f"when={when}") == 1
        *_, error = capsys.readouterr().err.splitlines()
        assert error.startswith("error: ")
        assert expected in error


def test_what_is_told_of_an_error_is_one_short_line():
    assert line("a\nb\x1b" + "x" * 2000, 10) == "a\\nb\\x1bxx..."
    message = str(BenchError("a\nb\x1b[31m\u202e"))
    assert message == "a\\nb\\x1b[31m\\u202e"
    assert str(pickle.loads(pickle.dumps(BadRequest(message)))) == message
    assert unexpected(ValueError()) == "ValueError"
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert f"({__file__}, line " in unexpected(caught.value)


def test_sigterm_says_one_line(here, capsys, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(plugins, "tasks", lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        assert call("list") == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == (
        "stopped: finished stages are kept, the same command goes on from there\n"
    )


def test_a_process_that_cannot_be_started_is_one_line(tmp_path):
    class Dead:
        def start(self):
            raise EOFError

    context = types.SimpleNamespace(Pipe=lambda duplex: (None, None), Process=lambda **_: Dead())
    setting = types.SimpleNamespace(retries=0, environment={}, log=lambda node: tmp_path)
    jobs = types.SimpleNamespace(setting=setting, _context=context)
    start = inspect.unwrap(local.Jobs.start)
    with pytest.raises(BenchError, match="no process could be started"):
        start(jobs, None, ())


# What a record names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["generator__name", "task__name"])
def test_code_that_a_record_names_is_not_imported_unasked(field):
    one = record(**{field: "antigravity:Class"})
    with pytest.raises(BadRequest, match=r"antigravity:Class: read it, .* verify with --foreign"):
        verify.verify(one)
    assert "antigravity" not in sys.modules


def test_no_control_character_of_a_record_reaches_the_terminal():
    one = record(
        generator__name=MARKUP, task__arch="\x1b[31m\x9b\x07", timing__device="\x1b]0;a\x07"
    )
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(report.render(one, "path"))
    assert all(text.isprintable() for text in console.file.getvalue().splitlines())
    assert "\\x1b[31m" in console.file.getvalue()


# Figures -------------------------------------------------------------------------------------------------------------


def test_huge_finite_weights_have_a_map():
    points = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)).sign() * 3e38
    mapped = figures.embed({"map.original": points[:6], "map.generated": points[6:]})
    assert all(torch.from_numpy(one).isfinite().all() for one in mapped.values())


def test_a_figure_that_cannot_be_made_is_a_note(capsys):
    with figures.optional("map"):
        raise ValueError("too large\nby far")
    told = capsys.readouterr().err
    assert told.startswith("note: the record has no map: ValueError: too large\\nby far (")
    assert len(told.splitlines()) == 1


def test_hyperparameters_of_foreign_types_are_plain_data(here):
    sys.path.insert(0, str(here))
    made = plugins.construct(
        plugins.load_generator("mine:Bad"), {"colour": "red"}, "hyperparameter"
    )
    assert foreign.hyperparameters(made) == {"when": "", "where": "a", "colour": "red"}
