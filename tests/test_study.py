import contextlib
import dataclasses
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.records.record import Record
from bench.runs import pipeline
from bench.study import recipe as recipes
from bench.study.local import Room
from bench.study.recipe import Needs
from bench.system import store
from tests import studies
from tests.standins import call

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def tiny(tmp_path):
    return studies.recipe(tmp_path)


def run(path, tmp_path, *arguments):
    return call("study", path, "--results", tmp_path / "results", "--device", "cpu", *arguments)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A study that ran to its end: the folder of its store and results, and what it said."""
    folder = tmp_path_factory.mktemp("study")
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.setenv("BENCH_HOME", str(folder / "home"))
        assert run(studies.recipe(folder), folder) == 0
    return folder, out.getvalue(), err.getvalue()


@pytest.fixture
def done(ran, tmp_path):
    """A copy of it, which a test may change."""
    shutil.copytree(ran[0], tmp_path, dirs_exist_ok=True)
    return tmp_path / "tiny.toml"


def test_a_study_gives_the_records_of_its_single_runs(ran, tmp_path, monkeypatch):
    folder, out, err = ran
    assert "4 records written" in out
    assert "stages: 10 done" in out
    assert len(re.findall(r"^\[\d+/10\] done ", err, re.MULTILINE)) == 10
    monkeypatch.setenv("BENCH_HOME", str(folder / "home"))
    assert (studies.made("collect"), studies.made("controls"), studies.made("fit")) == (1, 1, 2)
    for path in (folder / "results").rglob("*.json"):
        assert Record.read(path).artifacts.side.sha256 == store.file_hash(path.with_suffix(".npz"))
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "elsewhere"))
    for request in recipes.requests(recipes.cells(recipes.read(str(folder / "tiny.toml")))):
        pipeline.run(dataclasses.replace(request, results=tmp_path / "alone", device="cpu"))
    assert studies.records(folder / "results") == studies.records(tmp_path / "alone")


def test_what_is_recorded_is_not_run_again(done, tmp_path, capsys):
    tiny = done
    made = sorted(path.name for path in (store.home() / "made").iterdir())
    next(iter(sorted((tmp_path / "results").rglob("*.json")))).unlink()
    capsys.readouterr()
    assert run(tiny, tmp_path) == 0
    out = capsys.readouterr().out
    assert "1 records written" in out
    assert "3 were there before" in out
    assert "stages: 3 cached, 1 done" in out
    again = sorted(path.name for path in (store.home() / "made").iterdir())
    assert [name for name in again if name not in made and not name.startswith("record-")] == []
    assert run(tiny, tmp_path) == 0
    assert "0 records written" in capsys.readouterr().out


def test_nested_zoos_and_counts_of_samples_are_those_of_single_runs(tmp_path, monkeypatch):
    text = studies.RECIPE.replace("k = 5, samples = 4", "seed = 1")
    text = text.replace("seed = [0, 1]", "k = [3, 5]\nsamples = [2, 4]")
    path = studies.recipe(tmp_path, text)
    assert run(path, tmp_path, "--only", "generator=tests.tiny:Jitter") == 0
    assert (studies.made("collect"), studies.made("fit")) == (1, 2)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "elsewhere"))
    for request in recipes.requests(recipes.cells(recipes.read(str(path))))[:4]:
        pipeline.run(dataclasses.replace(request, results=tmp_path / "alone", device="cpu"))
    assert studies.records(tmp_path / "results") == studies.records(tmp_path / "alone")


def test_a_process_killed_in_every_kind_of_stage(tmp_path, capsys):
    text = studies.RECIPE.replace(', "average"', "")
    text = text.replace("seed = [0, 1]", 'layers = ["all", "b*"]')
    path = studies.recipe(tmp_path, text)
    assert run(path, tmp_path) == 0
    calm = studies.records(tmp_path / "results")
    for stage in ("base", "collect", "controls", "fit", "record"):
        studies.order(f"other/die/{stage}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(store.home() / "other"))
        assert run(path, tmp_path, "--results", tmp_path / "killed") == 0
        assert list((store.home() / "die").iterdir()) == []
    assert studies.records(tmp_path / "killed") == calm
    logs = [file.read_text() for file in (store.home() / "other" / "logs" / "tiny").iterdir()]
    assert sum("its process died (SIGKILL" in log for log in logs) == 5


def test_a_process_that_dies_again_and_again_is_given_up(tiny, tmp_path, capsys):
    studies.order("die/collect")
    once = ("--retries", "0", "--only", "seed=0", "--only", "generator=average")
    assert run(tiny, tmp_path, *once) == 1
    err = capsys.readouterr().err
    assert "its process died (SIGKILL: out of memory?) 1 times" in err
    assert list((tmp_path / "results").rglob("*.json")) == []
    assert run(tiny, tmp_path, *once) == 0  # the next call goes on


def test_one_failed_cell_stops_no_other(tmp_path, capsys):
    text = studies.RECIPE.replace("seed = [0, 1]", "set.task.broken = [true, false]")
    assert run(studies.recipe(tmp_path, text), tmp_path) == 1
    out, err = capsys.readouterr()
    assert "2 records written" in out
    assert "5 skipped" in out
    assert "1 failed" in out
    failed = re.search(
        r"failed: collect tests.tiny:Tiny k=5 broken=True: training diverged\n  log: (\S+)", err
    )
    assert "BenchError: training diverged" in Path(failed[1]).read_text()
    assert "needs 'collect tests.tiny:Tiny k=5 broken=True', which was not made" in err
    assert {
        data["task"]["settings"]["broken"]
        for data in studies.records(tmp_path / "results").values()
    } == {False}


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
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_store(tiny, tmp_path, tiny_disk, capsys, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tiny_disk / "home"))
    (tiny_disk / "ballast").write_bytes(b"x" * 40_000)
    assert run(tiny, tmp_path) == 1
    err = capsys.readouterr().err
    assert "the disk is full: cannot write" in err
    assert "Traceback" not in err
    (tiny_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
    assert run(tiny, tmp_path, "--only", "seed=0") == 0
    assert studies.made("collect") == 1


def test_full_results(tiny, tmp_path, tiny_disk, capsys):
    (tiny_disk / "ballast").write_bytes(b"x" * 56_000)
    part = ("--only", "seed=0", "--only", "generator=average")
    assert run(tiny, tmp_path, *part, "--results", tiny_disk / "results") == 1
    err = capsys.readouterr().err
    assert re.search(r"failed: record \S+ .*the disk is full: cannot write \S+/results/", err)


@linux
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_is_stopped_leaves_no_process_and_the_next_goes_on(tiny, tmp_path, stop):
    studies.order("slow", "60")
    results = tmp_path / "results"
    part = ("--only", "seed=0")
    driver = studies.begun(tiny, "--results", results, "--device", "cpu", *part)
    studies.until(lambda: studies.made("collect"))
    # Ctrl-C reaches every process of the terminal, a kill the driver alone.
    (os.killpg if stop == signal.SIGINT else os.kill)(driver.pid, stop)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == (130 if stop == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in err
    assert stop == signal.SIGKILL or "stopped: finished stages are kept" in err
    studies.until(lambda: not studies.processes(driver.pid), 30)
    assert [path.name for path in store.home().rglob(".*")] == []  # nothing half-written
    (store.home() / "slow").unlink()
    assert run(tiny, tmp_path, *part) == 0
    assert len(studies.records(results)) == 2


@linux
def test_two_studies_at_once_collect_a_zoo_once(tiny, tmp_path):
    studies.order("slow", "5")
    part = ("--only", "seed=0")
    other = studies.begun(tiny, "--results", tmp_path / "a", "--device", "cpu", *part)
    studies.until(lambda: studies.made("collect"))
    assert run(tiny, tmp_path, *part, "--results", tmp_path / "b") == 0
    other.communicate(timeout=120)
    assert other.returncode == 0
    assert (studies.made("collect"), studies.made("controls"), studies.made("fit")) == (1, 1, 1)
    assert studies.records(tmp_path / "a") == studies.records(tmp_path / "b")
    assert len(studies.records(tmp_path / "a")) == 2


def test_a_dry_run_does_nothing_and_says_what_is_shared(tiny, ran, tmp_path, capsys, monkeypatch):
    assert run(tiny, tmp_path, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "4 runs, 0 of them recorded already" in out
    assert re.search(r"zoos collected +1 +4 .* rule of thumb", out)
    assert out.count("python -m bench run") == 4
    assert not (tmp_path / "results").exists()
    assert not store.home().exists()
    folder, *_ = ran
    monkeypatch.setenv("BENCH_HOME", str(folder / "home"))
    assert run(folder / "tiny.toml", folder, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "4 runs, 4 of them recorded already" in out
    assert "nothing is left to do" in out
    none = ("--fix", "seed=9", "--results", tmp_path / "none")
    assert run(folder / "tiny.toml", folder, "--dry-run", *none) == 0
    assert "earlier runs" in capsys.readouterr().out


def test_without_ray_it_says_how_to_get_it(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(tiny, tmp_path, "--executor", "ray") == 2
    err = capsys.readouterr().err
    assert (
        err
        == "error: --executor ray needs Ray, which is not installed: pip install 'pgen-bench[ray]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which study? Name one, or give a recipe's file; --list names them"),
        (("smok",), "unknown study 'smok': did you mean 'smoke'?"),
        (
            ("tiny", "--device", "tpu"),
            "unknown device 'tpu' of a study: expected auto, cpu or cuda",
        ),
        (("tiny", "--fix", "k"), "--fix k: expected name=value"),
        (("tiny", "--fix", "kk=1"), "unknown setting 'kk'"),
        (("tiny", "--only", "seed=7"), "no run of the study is left"),
        (("tiny", "--results", "/dev/null/x"), "cannot write to /dev/null/x"),
        (("tiny", "--store", "nothing://x"), "BENCH_STORE=nothing://x cannot be used"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_starts_nothing(
    tiny, capsys, monkeypatch, arguments, message
):
    monkeypatch.setenv("BENCH_STORE", "")
    monkeypatch.chdir(tiny.parent)
    assert call("study", *(tiny if word == "tiny" else word for word in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert not store.home().exists()


# Room on a machine ---------------------------------------------------------------------------------------------------


def test_room_is_shared_and_one_stage_always_fits():
    room = Room(cpus=4, memory_gb=8.0, gpus={})
    assert room.take(Needs(cpus=2, gpus=0)) == ()
    assert room.take(Needs(cpus=2, gpus=0)) == ()
    assert room.take(Needs(cpus=1, gpus=0)) is None
    room.give_back(Needs(cpus=2, gpus=0), ())
    assert room.take(Needs(cpus=1, gpus=0, memory_gb=7)) is None
    assert room.take(Needs(cpus=1, gpus=0)) == ()
    assert Room(cpus=1, memory_gb=1.0, gpus={}).take(Needs(cpus=8, gpus=0, memory_gb=64)) == ()


def test_one_model_at_a_time_a_device_unless_it_needs_a_share():
    room = Room(cpus=16, memory_gb=64.0, gpus={"3": 1.0, "5": 1.0})
    assert room.take(Needs()) == ("3",)
    assert room.take(Needs()) == ("5",)
    assert room.take(Needs(gpus=0.5)) is None
    room.give_back(Needs(), ("3",))
    assert room.take(Needs(gpus=0.5)) == ("3",)
    assert room.take(Needs()) is None
    assert room.take(Needs(gpus=0.5)) == ("3",)
    room = Room(cpus=16, memory_gb=64.0, gpus={"0": 1.0, "1": 1.0})
    assert room.take(Needs(gpus=2)) == ("0", "1")
