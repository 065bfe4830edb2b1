import dataclasses
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from bench.contract.zoo import Layout, Zoo, per_tensor_std
from bench.contract.zoo_header import read_header
from bench.errors import BadRequest

quick = settings(derandomize=True, deadline=None, max_examples=50)

shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
several = st.lists(shapes, min_size=1, max_size=5).map(tuple)
batches = st.lists(st.integers(1, 3), max_size=3).map(tuple)


def normal(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layout_of(shapes):
    return Layout(tuple(f"t{i}" for i in range(len(shapes))), shapes)


def small_zoo(**changes):
    layout = Layout(("a", "b"), ((2, 2), ()))
    facts = {
        "vectors": normal((3, 5)),
        "layout": layout,
        "base": {"stem": normal((4,)), "steps": torch.tensor(7), "flag": torch.tensor([True])},
        "scores": (0.25, 0.5, 0.75),
        "curve": ((0.5, 0.2), (1.0, 0.5), (1.5, 0.7), (2.0, 0.75)),
        "collect_s": 2.0,
        "base_score": 0.8,
        "settings": {"task": "digits", "track": "trajectory", "lr": 0.1},
    }
    return Zoo(**(facts | changes))


def one_line(caught):
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# Layout --------------------------------------------------------------------------------------------------------------


@quick
@given(several, batches)
def test_unflatten_then_flatten_is_the_identity(shapes, batch):
    layout = layout_of(shapes)
    vectors = normal((*batch, layout.dim))
    tensors = layout.unflatten(vectors)
    assert list(tensors) == list(layout.names)
    assert [tuple(t.shape) for t in tensors.values()] == [batch + s for s in layout.shapes]
    assert torch.equal(layout.flatten(tensors), vectors)


@quick
@given(several, batches)
def test_flatten_then_unflatten_is_the_identity(shapes, batch):
    layout = layout_of(shapes)
    tensors = {
        name: normal((*batch, *shape), seed)
        for seed, (name, shape) in enumerate(zip(layout.names, layout.shapes, strict=True))
    }
    back = layout.unflatten(layout.flatten(tensors))
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


@quick
@given(several)
def test_slices_have_no_gaps_and_match_flatten(shapes):
    layout = layout_of(shapes)
    position = 0
    vector = layout.flatten(layout.unflatten(torch.arange(float(layout.dim))))
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        piece = layout.slices()[name]
        assert piece.start == position
        assert piece.stop - piece.start == math.prod(shape)
        assert torch.equal(vector[piece], layout.unflatten(vector)[name].flatten())
        position = piece.stop
    assert position == layout.dim


def test_flatten_follows_the_layout_not_the_order_of_the_mapping():
    layout = Layout(("a", "b"), ((2,), (1,)))
    vector = layout.flatten({"b": torch.tensor([3.0]), "a": torch.tensor([1.0, 2.0])})
    assert vector.tolist() == [1, 2, 3]


def test_flatten_keeps_an_empty_batch():
    layout = Layout(("a",), ((2, 2),))
    assert layout.flatten({"a": torch.zeros(0, 2, 2)}).shape == (0, 4)


def test_layout_of_tensors():
    layout = Layout.of({"w": torch.zeros(2, 3), "s": torch.tensor(1.0)})
    assert (layout.names, layout.shapes, layout.dim) == (("w", "s"), ((2, 3), ()), 7)


@pytest.mark.parametrize(("names", "sizes"), [(("a",), ()), (("a", "a"), ((1,), (1,)))])
def test_inconsistent_layout_is_refused(names, sizes):
    with pytest.raises(BadRequest) as caught:
        Layout(names, sizes)
    one_line(caught)


def test_flatten_names_a_missing_tensor():
    with pytest.raises(BadRequest, match="'b'") as caught:
        Layout(("a", "b"), ((1,), (1,))).flatten({"a": torch.zeros(1)})
    one_line(caught)


@pytest.mark.parametrize("shape", [(3, 2), (3,), (2, 3, 1), ()])
def test_flatten_names_a_tensor_of_another_shape(shape):
    with pytest.raises(BadRequest, match="'a'") as caught:
        Layout(("a",), ((2, 3),)).flatten({"a": torch.zeros(shape)})
    assert "(2, 3)" in one_line(caught)


def test_unflatten_says_both_lengths():
    with pytest.raises(BadRequest, match=r"6.*7|7.*6") as caught:
        Layout(("a",), ((6,),)).unflatten(torch.zeros(2, 7))
    one_line(caught)


# Zoo -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_and_located(bad):
    vectors = torch.zeros(4, 5)
    vectors[2, 3] = bad
    with pytest.raises(BadRequest, match="checkpoint 2") as caught:
        small_zoo(vectors=vectors)
    one_line(caught)


def test_no_checkpoints_are_refused():
    with pytest.raises(BadRequest, match="K >= 1") as caught:
        small_zoo(vectors=torch.zeros(0, 5))
    one_line(caught)


def test_vectors_that_do_not_fit_the_layout_are_refused():
    with pytest.raises(BadRequest, match=r"6.*5") as caught:
        small_zoo(vectors=torch.zeros(3, 6))
    one_line(caught)


def test_length_is_the_number_of_checkpoints(zoo):
    assert len(zoo) == 12


@quick
@given(several, st.integers(1, 4), st.integers(0, 99))
def test_save_and_load_keep_everything(tmp_path_factory, shapes, k, seed):
    layout = layout_of(shapes)
    path = tmp_path_factory.mktemp("zoo") / "file.safetensors"
    scores = tuple(map(float, range(k)))
    zoo = small_zoo(vectors=normal((k, layout.dim), seed), layout=layout, scores=scores)
    zoo.save(path)
    loaded = Zoo.load(path)
    assert loaded.hash == zoo.hash
    assert torch.equal(loaded.vectors, zoo.vectors)
    assert set(loaded.base) == set(zoo.base)
    assert all(torch.equal(loaded.base[n], zoo.base[n]) for n in zoo.base)
    assert all(loaded.base[n].dtype == zoo.base[n].dtype for n in zoo.base)
    for field in ("layout", "scores", "curve", "collect_s", "base_score", "settings"):
        assert getattr(loaded, field) == getattr(zoo, field)


def test_vectors_that_are_not_contiguous_can_be_saved(tmp_path):
    zoo = small_zoo(vectors=normal((3, 10))[:, ::2])
    zoo.save(tmp_path / "zoo")
    assert Zoo.load(tmp_path / "zoo").hash == zoo.hash


def test_base_tensors_that_share_memory_can_be_saved(tmp_path):
    """Tied weights do, and torch.load keeps them tied."""
    tied = normal((6,))
    zoo = small_zoo(base={"encoder": tied, "decoder": tied, "part": tied[:3]})
    zoo.save(tmp_path / "zoo")
    assert Zoo.load(tmp_path / "zoo").hash == zoo.hash


def test_hash_depends_on_the_content():
    zoo = small_zoo()
    changed = zoo.vectors.clone()
    changed[1, 2] += 1e-6
    others = [
        small_zoo(vectors=changed),
        small_zoo(vectors=zoo.vectors.flip(0)),
        small_zoo(vectors=zoo.vectors[:2]),
        small_zoo(layout=Layout(("a", "c"), ((2, 2), ()))),
        small_zoo(layout=Layout(("a", "b"), ((4,), ()))),
        small_zoo(base={}),
        small_zoo(base=zoo.base | {"stem": zoo.base["stem"] + 1}),
        small_zoo(base=zoo.base | {"steps": torch.tensor(7, dtype=torch.int32)}),
    ]
    assert len({zoo.hash, *(other.hash for other in others)}) == len(others) + 1


def test_hash_does_not_depend_on_how_long_it_took():
    zoo = small_zoo()
    for changes in ({"collect_s": 99.0}, {"curve": ()}, {"scores": ()}, {"settings": {}}):
        assert dataclasses.replace(zoo, **changes).hash == zoo.hash
    reordered = dict(reversed(zoo.base.items()))
    assert dataclasses.replace(zoo, base=reordered).hash == zoo.hash


# Files that cannot be used -------------------------------------------------------------------------------------------


def refused(path):
    with pytest.raises(BadRequest) as caught:
        Zoo.load(path)
    message = one_line(caught)
    assert str(path) in message
    return message


def test_missing_file(tmp_path):
    assert "collect" in refused(tmp_path / "none.zoo")


def test_a_folder_is_no_zoo(tmp_path):
    refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a zoo at all", b"\xff" * 64])
def test_a_file_of_something_else(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("keep", [4, 8, 100, -4, -1])
def test_truncated_file(tmp_path, keep):
    path = tmp_path / "zoo"
    small_zoo().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path)


def test_safetensors_that_are_no_zoo(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    refused(path)


FACTS = {
    "names": ["a"],
    "shapes": [[5]],
    "scores": [],
    "curve": [],
    "collect_s": 0.0,
    "base_score": None,
    "settings": {},
}


@pytest.mark.parametrize(
    "facts",
    [
        "{",
        "null",
        "[]",
        json.dumps(FACTS | {"names": None}),
        json.dumps(FACTS | {"shapes": [5]}),
        json.dumps(FACTS | {"scores": None}),
        json.dumps(FACTS | {"curve": [1, 2]}),
        json.dumps({name: value for name, value in FACTS.items() if name != "settings"}),
    ],
)
def test_damaged_facts(tmp_path, facts):
    path = tmp_path / "zoo"
    save_file({"vectors": torch.zeros(2, 5)}, path, {"zoo": facts})
    refused(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"vectors": torch.zeros(2, 6)},
        {"vectors": torch.zeros(0, 5)},
        {"vectors": torch.full((2, 5), math.nan)},
    ],
)
def test_facts_and_vectors_that_do_not_fit(tmp_path, tensors):
    path = tmp_path / "zoo"
    save_file(tensors, path, {"zoo": json.dumps(FACTS)})
    refused(path)


DEEP = "[" * 100_000
WRONG_FACTS = [
    {"collect_s": "1"}, {"collect_s": -1.0}, {"collect_s": math.nan}, {"collect_s": None}, {"collect_s": True},
    {"scores": ["a", "b"]}, {"scores": [1.0]}, {"scores": [math.inf, 0.0]}, {"scores": "ab"}, {"scores": {"a": 1}},
    {"curve": [[0.0, math.nan]] * 2}, {"curve": [[0.0, 1.0]]}, {"curve": [[0.0]] * 2}, {"base_score": "0.9"},
    {"base_score": math.inf}, {"settings": []}, {"settings": None}, {"names": "a"}, {"names": [1]},
    {"shapes": [[-5]]}, {"shapes": [[5.0]]}, {"shapes": [[2**70]]}, {"shapes": [["5"]]}, {"runs": 1},
]  # fmt: skip


def test_facts_of_other_types_are_refused_by_whoever_reads_them(tmp_path):
    path = tmp_path / "zoo"
    texts = [json.dumps(FACTS | wrong) for wrong in WRONG_FACTS]
    for text in [*texts, DEEP, '{"settings": ' + DEEP]:
        save_file({"vectors": torch.zeros(2, 5)}, path, {"zoo": text})
        refused(path)
        with pytest.raises(BadRequest):
            read_header(path)


WRONG_TENSORS = [
    *(torch.zeros(2, 5, dtype=getattr(torch, kind)) for kind in (
        "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "bool", "uint8", "int64"
    )),
    torch.zeros(5), torch.zeros(2, 5, 1), torch.zeros(()),
]  # fmt: skip


def test_tensors_of_other_types_and_shapes_are_refused(tmp_path):
    path = tmp_path / "zoo"
    for vectors in WRONG_TENSORS:
        save_file({"vectors": vectors}, path, {"zoo": json.dumps(FACTS)})
        refused(path)
    for base in (torch.tensor([1.0, math.nan]), torch.tensor([math.inf]), WRONG_TENSORS[3]):
        tensors = {"vectors": torch.zeros(2, 5), "base.stem": base}
        save_file(tensors, path, {"zoo": json.dumps(FACTS)})
        assert "stem" in refused(path)


@pytest.mark.parametrize("read", [read_header, Zoo.load])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "pipe", tmp_path / "loop", Path("/dev/zero"), tmp_path):
        with pytest.raises(BadRequest, match=re.escape(str(path))):
            read(path)


# head ----------------------------------------------------------------------------------------------------------------


def test_head_of_a_trajectory_takes_the_time_of_its_part():
    zoo = small_zoo()  # one point before collecting, then one for each of the 3 checkpoints
    head = zoo.head(2)
    assert torch.equal(head.vectors, zoo.vectors[:2])
    assert head.scores == (0.25, 0.5)
    assert head.curve == zoo.curve[:3]
    assert head.collect_s == 1.5
    assert (head.base, head.base_score) == (zoo.base, zoo.base_score)


def test_head_without_a_curve_keeps_the_time_of_all():
    head = small_zoo(curve=(), collect_s=3.0).head(1)
    assert head.collect_s == 3.0


def test_head_of_all_is_the_same_zoo(zoo):
    assert zoo.head(12) is zoo


def test_head_of_too_many_says_how_many_there_are(zoo):
    with pytest.raises(BadRequest, match=r"12 checkpoints, 13") as caught:
        zoo.head(13)
    one_line(caught)


@pytest.mark.parametrize("k", [0, -1])
def test_head_of_none_is_refused(zoo, k):
    with pytest.raises(BadRequest) as caught:
        zoo.head(k)
    one_line(caught)


# Functions -----------------------------------------------------------------------------------------------------------


@quick
@given(several, st.integers(1, 4), st.integers(0, 99))
def test_per_tensor_std_is_numpys(shapes, n, seed):
    layout = layout_of(shapes)
    vectors = normal((n, layout.dim), seed)
    spread = per_tensor_std(vectors, layout).numpy()
    assert spread.shape == (n, layout.dim)
    for piece in layout.slices().values():
        expected = vectors[:, piece].double().numpy().std(axis=1, keepdims=True)
        np.testing.assert_allclose(
            spread[:, piece], np.broadcast_to(expected, spread[:, piece].shape), rtol=1e-5
        )


def test_per_tensor_std_of_a_scalar_is_zero(zoo):
    assert (per_tensor_std(zoo.vectors, zoo.layout)[:, -1] == 0).all()
