import dataclasses

import pytest
import typer

from bench import cli
from bench.checks.asked import FLAGS, VALUED, _same, asked
from bench.request import Request, command

RUN = "python -m bench run"


def test_a_command_that_was_written_is_read():
    request = Request(
        task="digits", generator="pdiff", k=7, samples=9, seed=-3, zoo_seed=4, preset="paper", align=True,
        min_score=0.25, settings={"denoiser_channels": [8, 16], "compiled": False, "task.arch": "mlp3",
                                  "task.epochs": 3, "task.augment": "none"},
    )  # fmt: skip
    found = asked(command(request))
    assert found.options == {
        "task": "digits", "generator": "pdiff", "arch": "mlp3", "k": "7", "samples": "9", "seed": "-3",
        "zoo-seed": "4", "preset": "paper", "min-score": "0.25", "align": "",
    }  # fmt: skip
    assert found.settings == request.settings


def test_every_option_of_the_command_line_is_known():
    options = typer.main.get_command(cli.app).commands["run"].params
    flags = {name for option in options if option.is_flag for name in option.opts}
    names = {name for option in options for name in option.opts} - flags
    assert flags == {f"--{name}" for name in FLAGS}
    assert names == {f"--{name}" for name in VALUED}


def test_usual_values_are_left_out():
    request = Request(task="digits", generator="vae")
    assert asked(command(request)).options == {"task": "digits", "generator": "vae"}
    assert dataclasses.replace(request, align=True) != request


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        (f"{RUN} --seed=3", "seed", "3"),
        (f"{RUN} --seed 1 --seed 2", "seed", "2"),
        (f"{RUN} --generator 'my.module:Class'", "generator", "my.module:Class"),
        (f"{RUN} --layers 'a b*,c'", "layers", "a b*,c"),
    ],
)
def test_options_are_read_as_the_command_line_reads_them(text, name, value):
    assert asked(text).options[name] == value


@pytest.mark.parametrize(
    "text",
    ["", "rm -rf /", "python -m bench show x", f"{RUN} --fast", f"{RUN} x", f"{RUN} --align=1", f"{RUN} '"],
)  # fmt: skip
def test_what_is_no_command_of_a_run_is_refused(text):
    with pytest.raises(ValueError, match=r"begin|option|quotation"):
        asked(text)


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
