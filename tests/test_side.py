import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import side
from bench.errors import BadRequest, BenchError


def arrays():
    return {
        "nearest.noise 0.1": np.linspace(0, 1, 5, dtype=np.float16),
        "curve": np.array([[0.5, 0.1], [1.5, 0.9]], dtype=np.float32),
        "units": np.array([3, 3], dtype=np.int32),
    }


def test_what_was_written_is_read_and_the_bytes_are_the_same_each_time(tmp_path):
    made = arrays()
    side.write(tmp_path / "a.npz", made)
    side.write(tmp_path / "b.npz", dict(reversed(made.items())))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found = side.read(tmp_path / "a.npz")
    assert set(found) == set(made)
    for name, array in made.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"other": np.zeros(1, np.float32)}, "unknown array"),
        ({"nearest.<b>": np.zeros(1, np.float16)}, "unknown array"),
        ({"iou": np.zeros((2, 2), np.float32)}, "expected 2 of float16"),
        ({"curve": np.zeros(2, np.float32)}, "has 1 dimensions"),
        ({"curve": np.full((1, 2), np.nan, np.float32)}, "not finite"),
    ],
)
def test_what_is_not_of_this_format_is_neither_written_nor_read(tmp_path, wrong, reason):
    with pytest.raises(BenchError, match=reason):
        side.write(tmp_path / "a.npz", wrong)
    np.savez(tmp_path / "b.npz", **wrong)
    with pytest.raises(BadRequest, match=reason):
        side.read(tmp_path / "b.npz")
    assert not (tmp_path / "a.npz").exists()


def test_a_file_above_the_limit_is_refused(tmp_path):
    noise = np.random.default_rng(0).random((200_000, 2)).astype(np.float32)
    with pytest.raises(BenchError, match="at most 300,000"):
        side.write(tmp_path / "a.npz", {"curve": noise})
    np.savez(tmp_path / "b.npz", curve=noise)
    with pytest.raises(BadRequest, match="at most 300,000"):
        side.read(tmp_path / "b.npz")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "b.npz", curve=np.zeros((2_000_000, 2), np.float32))
    with pytest.raises(BadRequest, match="unpacks to"):
        side.read(tmp_path / "b.npz")


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04 truncated"])
def test_a_damaged_file_is_named(tmp_path, data):
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(BadRequest, match=r"a\.npz is not a readable side file"):
        side.read(tmp_path / "a.npz")


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", curve=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BadRequest, match="not a readable side file"):
        side.read(tmp_path / "a.npz")


def test_an_archive_of_other_things_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("../../curve", "x")
    with pytest.raises(BadRequest):
        side.read(tmp_path / "a.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadRequest, match="no side file at"):
        side.read(tmp_path / "a.npz")


@given(st.integers(1, 2000), st.integers(2, 500))
def test_evenly_spaced_indices_are_distinct_and_reach_both_ends(count, most):
    index = side.evenly(count, most)
    assert len(index) == min(count, most)
    assert (np.diff(index) > 0).all()
    assert (index[0], index[-1]) == (0, count - 1)
