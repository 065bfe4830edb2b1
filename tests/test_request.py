import dataclasses
import shlex
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import plugins
from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.records.asked import Asked
from bench.records.request import Request
from bench.records.values import parsed
from bench.runs import pipeline, prepared
from tests.standins import call
from tests.wrong import Right

FLAT = {"task": "digits", "generator": "noise"}


def test_a_preset_that_a_generator_alone_has_leaves_the_task_as_it_is():
    pdiff = {**FLAT, "generator": "pdiff"}
    assert Request.named({**pdiff, "preset": "official"}).asked.command.endswith(
        "--preset official"
    )
    for options, valid in ((pdiff, "quick, paper or official"), (FLAT, "quick or paper")):
        with pytest.raises(BadRequest, match=f"unknown preset 'huge': expected {valid}$"):
            Request.named({**options, "preset": "huge"})
    with pytest.raises(BadRequest, match="unknown preset 'official': expected quick or paper"):
        Request.named({**FLAT, "preset": "official"})
    usual = plugins.load_task("digits", "quick", {}).settings()
    assert plugins.load_task("digits", "official", {}).settings() == usual


@dataclasses.dataclass
class Mine(Right):
    """A generator of another package with a preset of its own."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"wide": {"width": 0.7}}


def test_presets_of_another_package_are_checked_when_it_is_imported():
    def made(preset):
        generator = f"{Mine.__module__}:{Mine.__name__}"
        asked = Request.named({**FLAT, "generator": generator, "preset": preset})
        return prepared.generator(asked, "cpu")

    assert (made("wide").width, made("paper").width) == (0.7, Mine().width)
    with pytest.raises(BadRequest, match="unknown preset 'huge': expected quick, paper or wide"):
        made("huge")


def test_options_go_where_they_belong():
    made = Request.named(
        {**FLAT, "arch": "mlp3", "k": 5, "set.amplitude": 0.5, "set.task.epochs": 1}
    )
    task, generator = {"arch": "mlp3", "epochs": 1}, {"amplitude": 0.5}
    assert made == Request("digits", "noise", task, generator, k=5)
    assert made == Request.named(
        {**FLAT, "k": 5, "task_settings": task, "generator_settings": generator}
    )
    assert made.asked.command == (
        "python -m bench run --task digits --generator noise --arch mlp3 --k 5 "
        "--set amplitude=0.5 --set task.epochs=1"
    )


def test_without_k_and_samples_they_are_the_tasks_own():
    assert (Request.named(FLAT).k, Request.named(FLAT).samples) == (200, 100)
    shapes = Request.named({**FLAT, "task": "shapes"})
    assert (shapes.k, shapes.samples) == (100, 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": "many"}, "k=many: Input should be a valid integer"),
        ({"k": 0}, "k is 0"),
        ({"task": "digit"}, "unknown task 'digit'"),
        ({"align": "perhaps"}, "align=perhaps"),
        ({"kk": 1}, "unknown setting 'kk'"),
    ],
)
def test_values_that_cannot_be(change, message):
    with pytest.raises(BadRequest, match=message):
        Request.named({**FLAT, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples is 0"), ({"seed": 2**60}, "seed is 1152921504606846976, expected at most 2"),
        ({"min_score": float("inf")}, "min_score is inf"), ({"preset": "huge"}, "unknown preset 'huge'"),
        ({"task": "x" * 400 + ":A"}, "task has 402 characters"),
        ({"task_settings": {"layers": "x" * 301}}, "layers has 301 characters"),
        ({"task_settings": {"-": 1}}, "a setting is named '-'"),
        ({"generator_settings": {"task.x": 1}}, "is named 'task.x'"),
        ({"generator_settings": {"a b": 1}}, "is named 'a b'"),
        ({"generator_settings": {"a": object()}}, "a is <object"),
        ({"generator_settings": {"a": "x" * 4000}}, "the command has 4,0"),
    ],
)  # fmt: skip
def test_every_way_to_make_a_request_checks_it(change, message):
    good = Request("digits", "noise")
    for make in (
        lambda: Request(**{**FLAT, **change}),
        lambda: Request.named({**FLAT, **change}),
        lambda: dataclasses.replace(good, **change),
    ):
        with pytest.raises(BadRequest, match=message) as error:
            make()
        assert "\n" not in str(error.value)


def test_every_field_of_the_canonical_request_is_one_of_the_request():
    machine = {"device", "data_dir", "results", "force", "collected"}
    assert {field.name for field in dataclasses.fields(Request)} - machine == set(
        Asked.model_fields
    )


def test_machines_are_not_in_the_canonical_request(tmp_path):
    one = Request("digits", "noise", device="cpu", results=tmp_path, force=True, collected=300)
    assert one.asked == Request("digits", "noise").asked


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    [
        "2",
        "-1",
        "null",
        "None",
        "true",
        "True",
        "NaN",
        "Infinity",
        "1e3",
        "[1]",
        "{}",
        '"',
        "--k",
        "a=b",
        "",
    ]
)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
SIMPLE = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2)
)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,7}", fullmatch=True)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.dictionaries(NAMES, VALUES, max_size=3), st.integers(-9, 9))
def test_the_command_line_reads_its_own_commands(own, seed):
    """Through the command line's real parser, as a shell would hand the words to it."""
    made = Request("digits", "noise", {}, own, seed=seed, min_score=0.5)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pipeline, "nested", lambda asked, sizes, **_: seen.append((asked, sizes)) or []
        )
        assert call(*shlex.split(made.asked.command)[3:]) == 0
    ((request, sizes),) = seen
    assert sizes == [200]
    assert request.asked == made.asked


def test_values_that_are_not_plain_become_what_they_name(tmp_path):
    values = {"a": tmp_path, "b": (1, 2.0), "c": {2, 1}, "d": float("inf")}
    made = Request("digits", "noise", generator_settings=values)
    plain = {"a": str(tmp_path), "b": [1, 2.0], "c": [1, 2], "d": float("inf")}
    assert made.generator_settings == plain
    assert made.asked.generator_settings == plain | {"d": "inf"}  # as records hold it


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1e-3", 0.001), ("true", True), ("False", False), ("None", None), ("a:1", "a:1"), ("[1, 2]", [1, 2])],
)  # fmt: skip
def test_texts_of_the_command_line(text, value):
    assert parsed(text) == value


# A zoo's file ----------------------------------------------------------------------------------


def zoo_file(folder, **settings_):
    layout = Layout(("weight",), ((3,),))
    zoo = Zoo(torch.zeros(7, 3), layout, settings=settings_)
    zoo.save(folder / "some.zoo")
    return folder / "some.zoo"


def test_k_and_seed_come_from_the_zoos_file(tmp_path):
    path = zoo_file(tmp_path, track="seeds", zoo_seed=4)
    made = Request.named({**FLAT, "zoo": path})
    assert (made.k, made.zoo_seed, made.samples) == (7, 4, 100)
    assert made.asked.command == f"python -m bench run --task digits --generator noise --zoo {path}"
    assert Asked.read(made.asked.command) == made.asked
    assert Request.named({**FLAT, "zoo": path, "k": 3, "zoo_seed": 4}).k == 3
    with pytest.raises(BadRequest, match="has seed 4, 5 was asked for: leave --zoo-seed out"):
        Request.named({**FLAT, "zoo": path, "zoo_seed": 5})


def test_a_zoo_that_does_not_say_its_seed_gets_none(tmp_path):
    path = zoo_file(tmp_path, imported=["a.pth"])
    assert Request.named({**FLAT, "zoo": path}).zoo_seed is None
    with pytest.raises(BadRequest, match="does not say its seed, 0 was asked for"):
        Request.named({**FLAT, "zoo": path, "zoo_seed": 0})


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"\xff" * 8, b"\x02" + bytes(7) + b"{}", b"\x05" + bytes(7) + b"[[[[["]
)
def test_a_file_that_is_no_zoo(tmp_path, content):
    (tmp_path / "some.zoo").write_bytes(content)
    with pytest.raises(BadRequest, match="is not a readable zoo"):
        Request.named({**FLAT, "zoo": tmp_path / "some.zoo"})
