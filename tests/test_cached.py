"""What is kept of decoded data is believed only where it is what was written there."""

import json
import os
import shutil
import time

import numpy as np
import pytest

from bench.errors import BenchError
from bench.system import store
from tasks.data import cached

CONTENT = {"hash": "0" * 64, "mean": [0.1, 2 / 3], "notes": ['a "quoted" note, "seal": "x'], "n": 1}
SHAPE = (4, 3)


def written(folder):
    """A folder with one JSON file and one array, and what is known of the array."""
    folder.mkdir()
    cached.write_json(CONTENT, folder / "meta.json")
    np.save(folder / "a.npy", np.arange(12, dtype=np.uint8).reshape(SHAPE))
    return cached.describe(folder / "a.npy")


def test_json_is_read_as_it_was_written(tmp_path):
    written(tmp_path / "one")
    path = tmp_path / "one" / "meta.json"
    read = cached.read_json(path)
    assert {key: read[key] for key in CONTENT} == CONTENT
    assert json.loads(path.read_text()) == read
    shutil.move(tmp_path, moved := tmp_path.with_name(tmp_path.name + "-moved"))
    assert cached.read_json(moved / "one" / "meta.json") == read
    shutil.move(moved, tmp_path)


@pytest.mark.parametrize("old", ["000", "0.1", "note", '"n": 1', '"seal"', "}"])
def test_changed_json_is_noticed(tmp_path, old):
    written(tmp_path / "one")
    path = tmp_path / "one" / "meta.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, old[:-1] + "9", 1))
    with pytest.raises(BenchError, match=r"meta\.json is damaged"):
        cached.read_json(path)


def test_json_from_elsewhere_is_noticed(tmp_path):
    written(tmp_path / "one")
    written(tmp_path / "two")
    shutil.copy(tmp_path / "one" / "meta.json", tmp_path / "two" / "meta.json")
    with pytest.raises(BenchError, match="damaged"):
        cached.read_json(tmp_path / "two" / "meta.json")
    with pytest.raises(BenchError, match="damaged"):
        cached.read_json(tmp_path / "none.json")


@pytest.mark.parametrize("large", [0, 1 << 30], ids=["mapped", "read"])
def test_arrays_are_read_as_they_were_written(tmp_path, large):
    said = json.loads(json.dumps(written(tmp_path / "one")))
    array = cached.read_array(tmp_path / "one" / "a.npy", said, SHAPE, large)
    assert array.tolist() == np.arange(12).reshape(SHAPE).tolist()
    assert isinstance(array, np.memmap) == (large == 0)


@pytest.mark.parametrize("large", [0, 1 << 30], ids=["mapped", "read"])
def test_a_changed_array_is_noticed_whatever_its_size_and_times_say(tmp_path, large):
    said = written(tmp_path / "one")
    path = tmp_path / "one" / "a.npy"
    before = path.stat()
    time.sleep(0.05)  # the clock of a file system is coarse
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\x63")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(BenchError, match=r"a\.npy is damaged: it is not what was written there"):
        cached.read_array(path, said, SHAPE, large)


@pytest.mark.parametrize("large", [0, 1 << 30], ids=["mapped", "read"])
def test_a_copied_array_is_believed_by_its_content(tmp_path, large):
    said = written(tmp_path / "one")
    shutil.copy(tmp_path / "one" / "a.npy", tmp_path / "b.npy")
    assert cached.read_array(tmp_path / "b.npy", said, SHAPE, large).sum() == 66


def test_another_shape_a_missing_file_and_a_missing_description_are_noticed(tmp_path):
    said = written(tmp_path / "one")
    path = tmp_path / "one" / "a.npy"
    with pytest.raises(BenchError, match=r"its shape is \(4, 3\), expected \(3, 4\)"):
        cached.read_array(path, said, (3, 4), 99999)
    with pytest.raises(BenchError, match="damaged"):
        cached.read_array(path, {}, SHAPE, 99999)
    path.unlink()
    with pytest.raises(BenchError, match="damaged"):
        cached.read_array(path, said, SHAPE, 99999)


@pytest.mark.parametrize("large", [0, 1 << 30], ids=["mapped", "read"])
def test_a_staged_array_is_made_once_and_again_when_it_is_not_the_same(tmp_path, large):
    path, made = tmp_path / "store" / "x.npy", []

    def make():
        made.append(1)
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.full(SHAPE, 7, np.uint8))

    def staged():
        return cached.stage_array(path, make, SHAPE, large)

    assert (staged() == 7).all()
    assert (staged() == 7).all()
    assert len(made) == 1
    np.save(path, np.full(SHAPE, 8, np.uint8))
    assert (staged() == 7).all()
    path.with_suffix(".json").unlink()
    assert (staged() == 7).all()
    assert len(made) == 3


@pytest.mark.parametrize("large", [0, 1 << 30], ids=["mapped", "read"])
def test_a_staged_array_goes_from_machine_to_machine(tmp_path, monkeypatch, large):
    monkeypatch.setenv("BENCH_STORE", f"file://{tmp_path}/shared")
    made = []

    def make():
        made.append(1)
        path().parent.mkdir(parents=True, exist_ok=True)
        np.save(path(), np.full(SHAPE, 7, np.uint8))

    def path():
        return store.home() / "decoded" / "x.npy"

    for machine in ("one", "two"):
        monkeypatch.setenv("BENCH_HOME", str(tmp_path / machine))
        assert (cached.stage_array(path(), make, SHAPE, large) == 7).all()
        assert path().exists()
    assert len(made) == 1
