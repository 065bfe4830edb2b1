import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from bench.contract.zoo import Zoo
from bench.errors import BadRequest, BenchError
from bench.system import store

quick = settings(derandomize=True, deadline=None, max_examples=50)
REPOSITORY = Path(__file__).parents[1]
full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def one_line(caught):
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def read(path):
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise BadRequest("damaged") from error


def write(value, path):
    store.write_text(path, json.dumps(value))


# atomic --------------------------------------------------------------------------------------------------------------


def test_kept_on_success(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    with store.atomic(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert names(path.parent) == ["file"]


def test_readable_by_others(tmp_path):
    store.write_text(tmp_path / "file", "content")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def fail_halfway(path, failure):
    with store.atomic(path) as temporary:
        temporary.write_text("half")
        raise failure


@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_removed_on_failure(tmp_path, failure):
    with pytest.raises(type(failure)) as caught:
        fail_halfway(tmp_path / "file", failure)
    assert caught.value is failure
    assert names(tmp_path) == []


def test_old_content_is_kept_when_the_writer_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        fail_halfway(path, RuntimeError("no"))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_text_is_utf8_and_replaces_the_old(tmp_path):
    path = tmp_path / "file"
    store.write_text(path, "long old content")
    store.write_text(path, "µ")
    assert path.read_bytes() == "µ".encode()


@pytest.mark.parametrize("below", ["file", "sub/file", "sub/sub/file"])
def test_folder_that_cannot_be_made(tmp_path, below):
    (tmp_path / "regular").write_text("a file, not a folder")
    with pytest.raises(BadRequest, match="regular") as caught:
        store.write_text(tmp_path / "regular" / below, "content")
    assert "cannot write" in one_line(caught)


def test_target_that_is_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadRequest, match="folder") as caught:
        store.write_text(tmp_path / "folder", "content")
    one_line(caught)
    assert names(tmp_path) == ["folder"]


def test_folder_without_permission(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(store.tempfile, "mkstemp", refuse)
    with pytest.raises(BadRequest, match="Permission denied") as caught:
        store.write_text(tmp_path / "file", "content")
    assert str(tmp_path) in one_line(caught)


# A full disk ---------------------------------------------------------------------------------------------------------


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_full(path, write_it):
    path.write_text("old")
    with pytest.raises(BenchError, match="disk is full") as caught:
        write_it()
    assert not isinstance(caught.value, BadRequest)
    assert str(path) in one_line(caught)
    assert path.read_text() == "old"
    assert names(path.parent) == [path.name]


@pytest.mark.parametrize("call", ["write_text", "chmod", "replace"])
def test_disk_full(tmp_path, monkeypatch, call):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_text("old")

    def write_it():
        with monkeypatch.context() as patch:
            patch.setattr(Path, call, full)
            store.write_text(path, "new")

    check_full(path, write_it)


def test_disk_full_before_the_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(store.tempfile, "mkstemp", full)
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    check_full(path, lambda: store.write_text(path, "new"))


def test_disk_full_in_safetensors(tmp_path):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()

    def write_it():
        with store.atomic(path):
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    check_full(path, write_it)


def _onto_full_device(temporary):
    temporary.unlink()
    temporary.symlink_to("/dev/full")


@full_device
def test_disk_full_for_real_text(tmp_path):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()

    def write_it():
        with store.atomic(path) as temporary:
            _onto_full_device(temporary)
            temporary.write_text("new")

    check_full(path, write_it)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no permission to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_full_for_real_safetensors(tiny_disk):
    path = tiny_disk / "file"

    def write_it():
        with store.atomic(path) as temporary:
            save_file({"vectors": torch.zeros(100_000)}, temporary)

    check_full(path, write_it)


def test_disk_full_for_real_zoo(tiny_disk, zoo):
    large = Zoo(zoo.vectors.repeat(1000, 1), zoo.layout)
    path = tiny_disk / "file"
    check_full(path, lambda: large.save(path))


# stage ---------------------------------------------------------------------------------------------------------------


class Maker:
    """Makes a new value each time, and counts."""

    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        return {"made": self.made}


def test_stage_makes_once_and_loads_after(tmp_path):
    path, make = tmp_path / "deep" / "stage", Maker()
    results = [store.stage(path, read, make, write) for _ in range(3)]
    assert results == [{"made": 1}] * 3
    assert make.made == 1


def test_stage_made_by_force(tmp_path):
    path, make = tmp_path / "stage", Maker()
    store.stage(path, read, make, write)
    assert store.stage(path, read, make, write, force=True) == {"made": 2}
    assert store.stage(path, read, make, write) == {"made": 2}


def test_stage_is_made_again_when_damaged(tmp_path):
    path, make = tmp_path / "stage", Maker()
    store.stage(path, read, make, write)
    path.write_text('{"made":')
    assert store.stage(path, read, make, write) == {"made": 2}
    assert read(path) == {"made": 2}


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_stage_of_a_truncated_zoo_is_made_again(tmp_path, zoo, keep):
    path = tmp_path / "zoo"
    store.stage(path, Zoo.load, lambda: zoo, Zoo.save)
    path.write_bytes(path.read_bytes()[:keep])
    assert store.stage(path, Zoo.load, lambda: zoo, Zoo.save).hash == zoo.hash
    assert Zoo.load(path).hash == zoo.hash


def test_stage_that_fails_leaves_nothing_and_can_be_repeated(tmp_path):
    def fail():
        raise BenchError("training diverged")

    path = tmp_path / "stage"
    with pytest.raises(BenchError, match="diverged"):
        store.stage(path, read, fail, write)
    assert not path.exists()
    assert store.stage(path, read, Maker(), write) == {"made": 1}


def test_stage_in_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "regular").write_text("a file, not a folder")
    make = Maker()
    with pytest.raises(BadRequest, match="regular") as caught:
        store.stage(tmp_path / "regular" / "sub" / "stage", read, make, write)
    one_line(caught)
    assert make.made == 0


# Several processes ---------------------------------------------------------------------------------------------------

WAIT = """
import json, os, pathlib, sys, time
from bench.system import store

folder = pathlib.Path(sys.argv[1])
(folder / f"ready-{os.getpid()}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
"""

STAGE = """
def make():
    (folder / f"made-{os.getpid()}").touch()
    time.sleep(0.2)
    return os.getpid()

load = lambda path: int(path.read_text())
print(store.stage(folder / "stage", load, make, lambda value, path: path.write_text(str(value))))
"""

WRITE = """
text = json.dumps({"writer": os.getpid(), "values": [os.getpid()] * 20_000})
for _ in range(50):
    store.write_text(folder / "results" / "record.json", text)
print(os.getpid())
"""


def in_processes(code, folder):
    """Run the code in 4 processes that start together; what each of them printed."""
    command = [sys.executable, "-c", WAIT + code, str(folder)]
    workers = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        end = time.monotonic() + 60
        while len(list(folder.glob("ready-*"))) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        (folder / "go").touch()
        printed = [worker.communicate(timeout=60)[0].strip() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * 4
    return printed


def test_concurrent_processes_make_a_stage_once(tmp_path):
    printed = in_processes(STAGE, tmp_path)
    assert len(list(tmp_path.glob("made-*"))) == 1
    assert len(set(printed)) == 1
    assert (tmp_path / f"made-{printed[0]}").exists()


def test_concurrent_writers_leave_one_whole_file(tmp_path):
    writers = in_processes(WRITE, tmp_path)
    record = json.loads((tmp_path / "results" / "record.json").read_text())
    assert str(record["writer"]) in writers
    assert record["values"] == [record["writer"]] * 20_000
    assert names(tmp_path / "results") == ["record.json"]


# Addresses -----------------------------------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@quick
@given(st.dictionaries(st.text(max_size=5), plain, max_size=4))
def test_digest_does_not_depend_on_the_order_of_keys(identity):
    backwards = dict(reversed(identity.items()))
    assert store.digest(identity) == store.digest(backwards)
    assert len(store.digest(identity)) == 16


@quick
@given(plain, plain)
def test_digest_tells_values_apart(a, b):
    if json.dumps(a, sort_keys=True) != json.dumps(b, sort_keys=True):
        assert store.digest(a) != store.digest(b)


def test_digest_is_stable():
    """A changed address would orphan every cached stage."""
    assert store.digest({"b": [1, 2.5, None], "a": "x"}) == "ce74053d7a9997b7"


def test_digest_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="JSON"):
        store.digest({"a": float("nan")})


def test_file_hash(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.file_hash(tmp_path / "file") == expected


def test_home_is_bench_home(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "mine"))
    assert store.home() == tmp_path / "mine"
    monkeypatch.delenv("BENCH_HOME")
    assert store.home().name == "pgen-bench"


@pytest.mark.parametrize(
    "error", [KeyError("a"), TypeError(), RecursionError(), MemoryError(), OSError(), EOFError()]
)
def test_a_stage_whose_file_cannot_be_read_for_any_reason_is_made_again(tmp_path, capsys, error):
    def load(path):
        raise error

    (tmp_path / "file").write_text("damaged")
    save = lambda result, path: path.write_text(result)  # noqa: E731
    assert store.stage(tmp_path / "file", load, lambda: "anew", save) == "anew"
    assert (tmp_path / "file").read_text() == "anew"
    assert f"is damaged ({type(error).__name__})" in capsys.readouterr().err


def test_what_is_no_regular_file_has_no_hash(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(BadRequest, match="is no regular file"):
            store.file_hash(path)
