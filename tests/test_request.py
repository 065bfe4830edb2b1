import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BadRequest
from bench.request import Request, command, of, options, parsed

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
    one = "python -m bench run --task a --align --set x=1 --set y=-2 --k 5"
    other = "python -m bench run --set y=-2 --k 5 --set x=1 --task a --align"
    assert options(one) == options(other)
    assert options(one) == {
        ("--task", "a"),
        ("--align", ""),
        ("--set", "x=1"),
        ("--set", "y=-2"),
        ("--k", "5"),
    }
    assert options(one) != options(one.replace("x=1", "x=2"))
    assert options(one) != options(one.replace(" --align", ""))
    assert options("python -m bench run --task 'a") == frozenset()


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    st.dictionaries(
        st.sampled_from(["amplitude", "task.epochs", "task.layers"]),
        st.integers(-5, 5)
        | st.floats(allow_nan=False)
        | st.text("ab*:,. '\"", min_size=1, max_size=5),
    ),
    st.integers(1, 9),
    st.booleans(),
)
def test_a_command_asks_for_what_its_request_does(values, seed, align):
    one = Request(task="digits", generator="noise", settings=values, seed=seed, align=align)
    back = dict(reversed(values.items()))
    other = Request(task="digits", generator="noise", settings=back, seed=seed, align=align)
    assert options(command(one)) == options(command(other))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1e-3", 0.001), ("true", True), ("False", False), ("None", None), ("a:1", "a:1"), ("[1, 2]", [1, 2])],
)  # fmt: skip
def test_texts_of_the_command_line(text, value):
    assert parsed(text) == value
