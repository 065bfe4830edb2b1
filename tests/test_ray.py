"""The Ray executor on a cluster of two machines, which are processes here: each has a local store of its own."""

import signal

import pytest

from tests import studies
from tests.standins import call

pytest.importorskip("ray", reason="needs the extra 'ray'")
MACHINES = ("first", "second")
COMMON = ("--device", "cpu", "--executor", "ray", "--ray-address")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two machines of one core, and the folder that holds their stores."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("cluster")
    started = Cluster()
    for name in MACHINES:
        own = {"BENCH_HOME": str(folder / name), "PYTHONPATH": str(studies.ROOT)}
        started.add_node(num_cpus=1, env_vars=own, include_dashboard=False)
    yield started.address, folder
    started.shutdown()


def stages(home):
    return {path.name for path in home.rglob("*.safetensors")}


@pytest.fixture(autouse=True)
def _no_shared_store(monkeypatch):
    """What ``--store`` sets in this process goes away after the test."""
    monkeypatch.setenv("BENCH_STORE", "")


def test_a_part_of_smoke_gives_the_records_of_the_local_executor(
    cluster, tmp_path, capsys, monkeypatch
):
    address, folder = cluster
    shared = tmp_path / "shared"
    part = ("study", "smoke", "--fix", "task=digits", "--only", "generator=vae")
    ours = ("--results", tmp_path / "ray", "--store", f"file://{shared}")
    assert call(*part, *ours, *COMMON, address) == 0
    out = capsys.readouterr().out
    assert "1 records written" in out
    assert "4 done" in out
    monkeypatch.setenv("BENCH_STORE", "")
    assert call(*part, "--results", tmp_path / "local", "--device", "cpu") == 0
    assert studies.records(tmp_path / "ray") == studies.records(tmp_path / "local")
    both = [stages(folder / name) for name in MACHINES]
    assert all(both)  # either machine did something, and what it did reached the shared store
    assert both[0] | both[1] == stages(shared)


def test_processes_killed_in_every_kind_of_stage_and_a_driver_that_is_killed(
    cluster, tmp_path, monkeypatch
):
    address, folder = cluster
    path = studies.recipe(tmp_path, studies.RECIPE.replace(', "average"', "").replace(", 1]", "]"))
    shared = ("--store", f"file://{tmp_path}/shared")
    homes = [folder / name for name in MACHINES]
    for home in homes:
        (home / "slow").write_text("60")
    driver = studies.begun(path, "--results", tmp_path / "ray", *shared, *COMMON, address)
    studies.until(lambda: any(list((home / "made").glob("collect-*")) for home in homes))
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=30)
    for home in homes:
        (home / "slow").unlink()
        for stage in ("collect", "controls", "fit", "record"):
            monkeypatch.setenv("BENCH_HOME", str(home))
            studies.order(f"die/{stage}")
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    assert call("study", path, "--results", tmp_path / "ray", *shared, *COMMON, address) == 0
    left = [{order.name for order in (home / "die").iterdir()} for home in homes]
    assert left[0] & left[1] == set()  # every order was obeyed on one machine, if not on both
    monkeypatch.setenv("BENCH_STORE", "")
    assert call("study", path, "--results", tmp_path / "local", "--device", "cpu") == 0
    assert studies.records(tmp_path / "ray") == studies.records(tmp_path / "local")


def test_an_address_where_no_cluster_is(tmp_path, capsys):
    path = studies.recipe(tmp_path)
    assert call("study", path, "--results", tmp_path / "results", *COMMON, "127.0.0.1:1") == 2
    assert "error: no Ray cluster at 127.0.0.1:1: " in capsys.readouterr().err
