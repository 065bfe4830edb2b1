import pytest
import typer

from bench import cli
from bench.errors import BadRequest
from bench.records.checks.asked import OPTIONS, _same
from bench.records.request import FLAGS, read

RUN = "python -m bench run"
LEFT_OUT = {
    "device",
    "data_dir",
    "results",
    "json",
    "profile",
    "force",
    "debug",
    "set",
}  # of records


def test_every_option_of_the_command_line_is_known():
    options = typer.main.get_command(cli.app).commands["run"].params
    names = {name.removeprefix("--").replace("-", "_") for o in options for name in o.opts}
    flags = {name.removeprefix("--") for o in options if o.is_flag for name in o.opts}
    assert names - LEFT_OUT == set(OPTIONS)
    assert flags - LEFT_OUT == set(FLAGS)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        (f"{RUN} --seed=3", "seed", 3),
        (f"{RUN} --seed 1 --seed 2", "seed", 2),
        (f"{RUN} --generator 'my.module:Class'", "generator", "my.module:Class"),
        (f"{RUN} --layers 'a b*,c'", "layers", "a b*,c"),
        (f"{RUN} --set task.layers=a --set x='[1, 2]'", "layers", "a"),
        (f"{RUN} --set task.layers=a --set x='[1, 2]'", "set.x", [1, 2]),
    ],
)
def test_options_are_read_as_the_command_line_reads_them(text, name, value):
    assert read(text)[name] == value


@pytest.mark.parametrize("text", ["", "rm -rf /", "python -m bench show x", f"{RUN} x", f"{RUN} '"])
def test_what_is_no_command_of_a_run_is_refused(text):
    with pytest.raises(BadRequest, match=r"is no command of|expected"):
        read(text)


@pytest.mark.parametrize(
    ("given", "says", "same"),
    [
        (1, 1.0, True), ("1e-3", 0.001, True), (True, True, True), ("none", "none", True), (None, None, True),
        ([8, 16], [8, 16], True), ((8, 16), [8, 16], True), (5, "5", True), ("{'a': 1}", {"a": 1}, True),
        (2, 1, False), ("x", 1.0, False), (None, 0, False), (0, None, False), ([8], [8, 16], False),
        ([8, 17], [8, 16], False), (True, False, False), ("a", "b", False),
    ],
)  # fmt: skip
def test_a_value_stands_for_what_its_field_makes_of_it(given, says, same):
    assert _same(given, says) is same
