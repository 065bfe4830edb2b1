import contextlib
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BadRequest, BenchError
from bench.records import side


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
    np.savez(tmp_path / "a.npz", curve=np.array([[{"a": 1}]], dtype=object))
    with pytest.raises(BadRequest, match="has 2 dimensions of object, expected 2 of float32"):
        side.read(tmp_path / "a.npz")


def written(tmp_path, members, method=zipfile.ZIP_DEFLATED):
    """A side file of these members, whatever they are."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return tmp_path / "a.npz"


def headed(text, data=b""):
    """An array's file with this header."""
    header = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (
            "{'descr': '<f2', 'fortran_order': False, 'shape': (1000000, 1000000)}",
            "needs 2,000,000",
        ),
        ("{'descr': '<f2', 'fortran_order': False, 'shape': (-1, 2)}", "its shape"),
        ("{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000,)}", "has 1 dimensions"),
        ("{'descr': '>f2', 'fortran_order': False, 'shape': (1, 1)}", "expected 2 of float16"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}", "of object"),
        ("{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1)", "no readable header"),
        ("__import__('os')", "no readable header"),
        ("(" * 100, "no readable header"),
    ],
)
def test_a_header_is_believed_only_with_the_bytes_it_needs(tmp_path, header, reason):
    """The array is made after that, so a header of a trillion numbers costs nothing."""
    with pytest.raises(BadRequest, match=reason):
        side.read(written(tmp_path, {"iou.npy": headed(header, b"\x00\x3c")}))


def test_arrays_in_the_order_of_fortran_are_read_as_they_were(tmp_path):
    made = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))
    side.write(tmp_path / "a.npz", {"curve": made})
    np.testing.assert_array_equal(side.read(tmp_path / "a.npz")["curve"], made)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path, method):
    with pytest.raises(BadRequest, match="is compressed by method"):
        side.read(written(tmp_path, {"units.npy": b"x"}, method))


@pytest.mark.parametrize("position", range(0, 1200, 7))
def test_any_flipped_byte_is_a_bad_request_or_changes_nothing(tmp_path, position):
    side.write(tmp_path / "a.npz", arrays())
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[position % len(data)] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(data)
    found = arrays()
    with contextlib.suppress(BadRequest):
        found = side.read(tmp_path / "a.npz")
    assert all(np.array_equal(found[name], array) for name, array in arrays().items())


def test_what_is_wrong_with_one_array_does_not_hide_the_others(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(), iou=np.ones(2, np.float16), other=np.ones(1))
    found, problems = side.unpacked((tmp_path / "a.npz").read_bytes())
    assert set(found) == set(arrays())
    assert len(problems) == 2


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_named(tmp_path):
    np.savez(tmp_path / "b.npz", **arrays())
    with zipfile.ZipFile(tmp_path / "b.npz") as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, content in [*members, members[0]]:
            archive.writestr(name, content)
    with pytest.raises(BadRequest, match="there twice"):
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
