import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from bench.errors import BadRequest
from bench.records.asked import Asked
from bench.records.request import Request
from tests.test_request import FLAT, NAMES, SIMPLE, VALUES

RUN = "python -m bench run"
NOISE = f"{RUN} --task digits --generator noise"
SHIPPED = Path(__file__).resolve().parents[1] / "leaderboard" / "results"


def test_of_a_request_only_what_is_not_usual_is_said():
    request = Request.named({**FLAT, "arch": "mlp3", "k": 5, "samples": 100, "set.amplitude": 0.5})
    asked = request.asked
    assert asked.model_dump() == {
        "task": "digits",
        "generator": "noise",
        "k": 5,
        "task_settings": {"arch": "mlp3"},
        "generator_settings": {"amplitude": 0.5},
    }
    assert asked.command == f"{NOISE} --arch mlp3 --k 5 --set amplitude=0.5"


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.dictionaries(NAMES, VALUES, max_size=2),
    st.dictionaries(st.sampled_from(["arch", "layers", "track", "pretrained", "limit"]), SIMPLE),
    st.integers(-9, 9),
    st.integers(1, 9),
    st.booleans(),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_command_and_json_read_back(own, task, direct, seed, k, align, score):
    asked = Asked(
        task="digits", generator="noise", generator_settings=own, task_settings={**task, **direct},
        seed=seed, zoo_seed=-seed, k=k, align=align, min_score=score,
    )  # fmt: skip
    for again in (Asked.read(asked.command), Asked.model_validate_json(asked.model_dump_json())):
        assert again == asked
        assert again.digest == asked.digest
        assert again.command == asked.command


def test_the_commands_of_shipped_records_are_printed_as_they_were():
    records = (json.loads(path.read_bytes()) for path in SHIPPED.glob("*/*.json"))
    lines = [one["command"] for one in records if one["schema"] == 1]  # later ones keep the request
    assert len(lines) > 100
    assert [Asked.read(line).command for line in lines] == lines
    assert len({Asked.read(line) for line in lines}) == len(set(lines))


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("--seed 0", True), ("--k 200", True), ("--samples=100", True), ("--preset quick", True),
        ("--zoo-seed 0", True), ("--track trajectory", True), ("--set relative=True", True),
        ("--set relative=true", True), ("--set amplitude=0.1", True), ("--set task.epochs=2", True),
        ("--set task.epochs=2.0", True), ("--set task.arch=convnet3", True), ("--layers last-norms:2", True),
        ("--set task.lr=null", True), ("--seed 1 --seed 0", True),
        ("--seed 1", False), ("--samples 99", False), ("--set relative=False", False), ("--set relative=1", False),
        ("--set task.epochs=3", False), ("--set task.lr=1", False), ("--align", False), ("--min-score 0", False),
        ("--preset paper", False),
    ],
)  # fmt: skip
def test_a_default_counts_as_left_out(said, same):
    assert (Asked.read(f"{NOISE} {said}") == Asked.read(NOISE)) is same
    assert (Asked.read(f"{NOISE} {said}").digest == Asked.read(NOISE).digest) is same


def test_a_presets_value_is_the_default_of_that_preset():
    """p-diff's paper preset samples in 1,000 steps, its own default is 20."""
    one, paper = (
        f"{RUN} --task digits --generator pdiff{more}" for more in ("", " --preset paper")
    )
    assert Asked.read(f"{one} --set sampler_steps=20") == Asked.read(one)
    assert Asked.read(f"{paper} --set sampler_steps=1000") == Asked.read(paper)
    assert Asked.read(f"{paper} --set sampler_steps=20") != Asked.read(paper)
    assert Asked.read(f"{one} --set channels=[1,2]") != Asked.read(one)


def test_order_and_the_way_a_number_is_written_do_not_count():
    one = Asked.read(f"{NOISE} --align --set x=1 --set y=[-2,{{}}] --k 5")
    other = Asked.read(
        f"{RUN} --set y=[-2.0,{{}}] --k 5 --generator noise --set x=1.0 --task digits --align"
    )
    assert one == other
    assert one != Asked.read(f"{NOISE} --align --set x=true --set y=[-2,{{}}] --k 5")


def test_of_another_packages_plugins_no_default_is_known():
    one = f"{RUN} --task my.module:Task --generator my.module:Class"
    assert Asked.read(f"{one} --k 200") != Asked.read(one)
    assert Asked.read(f"{one} --seed 0") == Asked.read(one)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "is no command of"), ("rm -rf /", "is no command of"), ("python -m bench show x", "is no command of"),
        (f"{RUN} '", "is no command of"), (f"{RUN} x", "'x' stands where an option was expected"),
        (f"{NOISE} --fast 1", "--fast is no option of"), (f"{NOISE} --device cpu", "--device is no option of"),
        (f"{NOISE} --task-settings 1", "is no option of"), (f"{RUN} --task digits", "generator: Field required"),
        (f"{NOISE} --k many", "k: Input should be a valid integer"), (f"{NOISE} --k 0", "k: Input should be greater"),
        (f"{NOISE} --min-score nan", "min_score: Input should be a finite number"),
        (f"{NOISE} --set x=1{'0' * 20}", "generator_settings: x is 1"),
        (f"{NOISE} --layers {'x' * 4000}", "the command has 4,0"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_command_of_a_run_is_refused_in_one_line(line, message):
    with pytest.raises(BadRequest, match=message) as error:
        Asked.read(line)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--seed=3", "seed", 3), ("--seed 1 --seed 2", "seed", 2), ("--generator 'a.b:C'", "generator", "a.b:C"),
        ("--layers 'a b*,c'", "task_settings", {"layers": "a b*,c"}), ("--layers 2", "task_settings", {"layers": "2"}),
        ("--set task.layers=2", "task_settings", {"layers": 2}), ("--limit 2", "task_settings", {"limit": 2}),
        ("--set x='[1, 2]'", "generator_settings", {"x": [1, 2]}),
        ("--set x=Infinity", "generator_settings", {"x": "inf"}),
    ],
)  # fmt: skip
def test_options_are_read_as_the_command_line_reads_them(line, field, value):
    assert getattr(Asked.read(f"{NOISE} {line}"), field) == value


def test_a_record_holds_it_and_refuses_what_it_is_not():
    class Holder(BaseModel):
        request: Asked

    asked = Asked.read(f"{NOISE} --seed 3 --set amplitude=0.5")
    text = Holder(request=asked).model_dump_json()
    assert json.loads(text) == {
        "request": {"task": "digits", "generator": "noise", "seed": 3, "generator_settings": {"amplitude": 0.5}}
    }  # fmt: skip
    assert Holder.model_validate_json(text).request == asked
    for wrong in ({"device": "cpu"}, {"seed": "3"}, {"generator_settings": {"x": 2**60}}, {"k": 0}):
        with pytest.raises(ValueError, match="validation error"):
            Asked.model_validate({"task": "digits", "generator": "noise", **wrong})
