import importlib.util
import json

import fsspec
import pytest

from bench.errors import BadRequest, BenchError
from bench.system import remote, store


@pytest.fixture(params=["file", "memory"])
def shared(request, tmp_path, monkeypatch):
    """A shared store; the folder or memory behind it as a file system and its root."""
    url = (
        f"file://{tmp_path}/shared"
        if request.param == "file"
        else f"memory://{tmp_path.name}/shared"
    )
    monkeypatch.setenv("BENCH_STORE", url)
    files, root = fsspec.core.url_to_fs(url)
    yield files, root
    if request.param == "memory":
        files.store.clear()


def machine(monkeypatch, tmp_path, name):
    """Go on as another machine, with a local store of its own."""
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / name))


def read(path):
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise BenchError("damaged") from error


def staged(value, **options):
    """The stage's result, and whether it was made."""
    path = store.home() / "zoos" / "stage"

    def write(made, path):
        store.write_text(path, json.dumps(made))

    with store.watched() as made:
        result = store.stage(path, read, lambda: value, write, **options)
    return result, made == [path]


def names(shared):
    files, root = shared
    return [name.removeprefix(root) for name in files.find(root)]


def test_a_stage_made_on_one_machine_is_found_on_another(shared, monkeypatch, tmp_path):
    assert staged("first") == ("first", True)
    assert names(shared) == ["/zoos/stage"]
    machine(monkeypatch, tmp_path, "second")
    assert staged("other") == ("first", False)
    assert (store.home() / "zoos" / "stage").exists()
    monkeypatch.delenv("BENCH_STORE")
    assert staged("other") == ("first", False)  # it stays on the machine


def test_what_was_made_before_there_was_a_shared_store_is_put_there(shared, monkeypatch):
    url = remote.url()
    monkeypatch.delenv("BENCH_STORE")
    staged("first")
    assert names(shared) == []
    monkeypatch.setenv("BENCH_STORE", url)
    assert staged("other") == ("first", False)
    assert names(shared) == ["/zoos/stage"]


def test_force_makes_it_anew_for_all(shared, monkeypatch, tmp_path):
    staged("first")
    machine(monkeypatch, tmp_path, "second")
    assert staged("other", force=True) == ("other", True)
    machine(monkeypatch, tmp_path, "third")
    assert staged("no") == ("other", False)


def test_a_damaged_file_is_made_again_and_replaced(shared, monkeypatch, tmp_path):
    staged("first")
    files, root = shared
    files.pipe_file(f"{root}/zoos/stage", b'"fir')
    machine(monkeypatch, tmp_path, "second")
    assert staged("again") == ("again", True)
    machine(monkeypatch, tmp_path, "third")
    assert staged("no") == ("again", False)


def test_a_file_that_is_half_there_is_not_there(shared, monkeypatch, tmp_path):
    """A machine that dies while it writes leaves a temporary name alone."""
    files, _ = shared
    with monkeypatch.context() as patch:
        patch.setattr(type(files), "mv", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            staged("first")
    assert [name for name in names(shared) if not name.startswith("/zoos/.")] == []
    machine(monkeypatch, tmp_path, "second")
    assert staged("second") == ("second", True)


def test_a_store_that_does_not_answer_is_no_reason_to_make_anything_again(shared, monkeypatch):
    staged("first")
    files, _ = shared

    def broken(*_, **__):
        raise OSError("connection reset")

    monkeypatch.setattr(type(files), "exists", broken)
    with pytest.raises(
        BenchError, match=r"shared store .* does not work: OSError: connection reset"
    ):
        staged("other")


def test_a_store_that_is_set_aside_is_neither_asked_nor_written_to(shared):
    staged("first")
    home, before = store.home(), names(shared)
    with store.set_aside() as folder:
        assert store.home() == folder != home
        assert staged("again") == ("again", True)
        assert staged("no") == ("again", False)
    assert store.home() == home
    assert not folder.exists()
    assert names(shared) == before
    assert staged("no") == ("first", False)


def test_files_outside_of_the_store_stay_where_they_are(shared, tmp_path):
    store.stage(tmp_path / "mine", read, lambda: 1, lambda made, path: store.write_text(path, "1"))
    assert names(shared) == []


def test_a_url_that_cannot_be_used(monkeypatch):
    monkeypatch.setenv("BENCH_STORE", "nothing://x")
    with pytest.raises(BadRequest, match=r"BENCH_STORE=nothing://x cannot be used: .*nothing"):
        remote.check()


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_url_whose_package_is_not_there(monkeypatch):
    monkeypatch.setenv("BENCH_STORE", "s3://bucket")
    with pytest.raises(BadRequest, match="s3fs"):
        remote.check()


def test_without_a_url_there_is_none(monkeypatch):
    monkeypatch.delenv("BENCH_STORE", raising=False)
    remote.check()
    assert remote.url() is None
