import shlex

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest
from bench.records.request import Request, command, of, options, read
from bench.records.values import parsed
from bench.runs import pipeline
from tests.standins import call

FLAT = {"task": "digits", "generator": "noise"}


def test_flat_settings_are_those_of_the_command_line():
    made = of({**FLAT, "arch": "mlp3", "k": 5, "set.amplitude": 0.5, "set.task.epochs": 1})
    settings_ = {"task.arch": "mlp3", "amplitude": 0.5, "task.epochs": 1}
    assert made == Request(task="digits", generator="noise", k=5, settings=settings_)
    assert command(made) == (
        "python -m bench run --task digits --generator noise --arch mlp3 --k 5 "
        "--set amplitude=0.5 --set task.epochs=1"
    )


def test_without_k_and_samples_they_are_the_tasks_own():
    assert (of(FLAT).k, of(FLAT).samples) == (200, 100)
    shapes = of({**FLAT, "task": "shapes"})
    assert (shapes.k, shapes.samples) == (100, 50)


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
        of({**FLAT, **change})


def test_the_order_of_options_does_not_matter():
    one = "python -m bench run --task digits --generator noise --align --set x=1 --set y=-2 --k 5"
    other = (
        "python -m bench run --set y=-2 --k 5 --generator noise --set x=1.0 --task digits --align"
    )
    assert options(one) == options(other)
    assert options(one) != options(one.replace("x=1", "x=2"))
    assert options(one) != options(one.replace(" --align", ""))
    assert options(one) != options(one.replace("noise", "gaussian"))
    torn = "python -m bench run --task 'a"
    assert options(torn) == options(torn) != options("python -m bench run --task 'b")


@pytest.mark.parametrize(
    "said",
    ["--seed 0", "--k 200", "--samples=100", "--preset quick", "--zoo-seed 0", "--track trajectory",
     "--set relative=True", "--set relative=true", "--set amplitude=0.1", "--set task.epochs=2",
     "--set task.arch=convnet3", "--layers last-norms:2", "--set task.lr=null"],
)  # fmt: skip
def test_a_default_that_is_left_out_counts_as_that_default(said):
    plain_ = "python -m bench run --task digits --generator noise"
    assert options(f"{plain_} {said}") == options(plain_)


@pytest.mark.parametrize(
    "said",
    ["--seed 1", "--samples 99", "--set relative=False", "--set task.epochs=3", "--set task.lr=1"],
)
def test_what_is_no_default_counts(said):
    plain_ = "python -m bench run --task digits --generator noise"
    assert options(f"{plain_} {said}") != options(plain_)


def test_a_presets_value_is_the_default_of_that_preset():
    """p-diff's paper preset samples in 1,000 steps, its own default is 20."""
    one = "python -m bench run --task digits --generator pdiff"
    assert options(f"{one} --set sampler_steps=20") == options(one)
    assert options(f"{one} --preset paper --set sampler_steps=1000") == options(
        f"{one} --preset paper"
    )
    assert options(f"{one} --preset paper --set sampler_steps=20") != options(
        f"{one} --preset paper"
    )
    assert options(f"{one} --set channels=[1,2]") != options(one)


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


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.dictionaries(NAMES | NAMES.map("task.{}".format), VALUES, max_size=3),
    st.dictionaries(st.sampled_from(["arch", "layers", "track", "pretrained", "limit"]), SIMPLE),
    st.integers(-9, 9),
    st.integers(1, 9),
    st.booleans(),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_command_reads_back_to_its_request(own, direct, seed, k, align, score):
    values = own | {f"task.{name}": value for name, value in direct.items()}
    made = Request(
        "digits", "noise", values, k=k, seed=seed, zoo_seed=abs(seed), align=align, min_score=score
    )
    again = of(read(command(made)))
    assert again == made
    assert repr(again.settings) == repr(made.settings) or sorted(again.settings) == sorted(
        made.settings
    )
    assert options(command(again)) == options(command(made))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.dictionaries(NAMES, VALUES, max_size=3), st.integers(-9, 9))
def test_the_command_line_reads_its_own_commands(own, seed):
    """Through the command line's real parser, as a shell would hand the words to it."""
    made = Request("digits", "noise", own, seed=seed, min_score=0.5)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pipeline, "nested", lambda asked, sizes, **_: seen.append((asked, sizes)) or []
        )
        assert call(*shlex.split(command(made))[3:]) == 0
    assert seen == [(made, [200])]


def test_values_that_are_not_plain_become_what_they_name(tmp_path):
    made = Request(
        "digits", "noise", {"a": tmp_path, "b": (1, 2.0), "c": {2, 1}, "d": float("inf")}
    )
    assert made.settings == {"a": str(tmp_path), "b": [1, 2.0], "c": [1, 2], "d": float("inf")}
    assert of(read(command(made))) == made
    with pytest.raises(BadRequest, match=r"a is <object"):
        Request("digits", "noise", {"a": object()})


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
    made = of({**FLAT, "zoo": path})
    assert (made.k, made.zoo_seed, made.samples) == (7, 4, 100)
    assert command(made) == f"python -m bench run --task digits --generator noise --zoo {path}"
    assert of(read(command(made))) == made
    assert of({**FLAT, "zoo": path, "k": 3, "zoo_seed": 4}).k == 3
    with pytest.raises(BadRequest, match="has seed 4, 5 was asked for: leave --zoo-seed out"):
        of({**FLAT, "zoo": path, "zoo_seed": 5})


def test_a_zoo_that_does_not_say_its_seed_gets_none(tmp_path):
    path = zoo_file(tmp_path, imported=["a.pth"])
    assert of({**FLAT, "zoo": path}).zoo_seed is None
    with pytest.raises(BadRequest, match="does not say its seed, 0 was asked for"):
        of({**FLAT, "zoo": path, "zoo_seed": 0})


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"\xff" * 8, b"\x02" + bytes(7) + b"{}", b"\x05" + bytes(7) + b"[[[[["]
)
def test_a_file_that_is_no_zoo(tmp_path, content):
    (tmp_path / "some.zoo").write_bytes(content)
    with pytest.raises(BadRequest, match="is not a readable zoo"):
        of({**FLAT, "zoo": tmp_path / "some.zoo"})
