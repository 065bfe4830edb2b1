import gzip
import json
import time

import torch

from bench.system import profile as profiling
from bench.system.profile import TOP, Profile


def test_a_stage_knows_its_time_its_costliest_operations_and_its_trace(tmp_path, capsys):
    profile = Profile(tmp_path / "traces", "cpu")
    matrix = torch.randn(600, 600)
    with profile.stage("multiply much"):
        for _ in range(5):
            matrix @ matrix
        matrix.sum()
    with profile.stage("nothing"):
        pass
    stage, empty = profile.stages
    assert stage.operations[0].name == "aten::mm"
    assert stage.operations[0].calls == 5
    assert 0 < stage.operations[0].seconds <= stage.seconds
    assert len(stage.operations) <= TOP
    assert empty.operations == []
    with gzip.open(stage.trace, "rt") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert "aten::mm" in names
    profile.show()
    shown = capsys.readouterr().err
    assert "multiply much" in shown
    assert "aten::mm" in shown
    assert "nothing" in shown
    assert str(tmp_path / "traces") in shown


def test_only_the_start_of_a_long_stage_is_traced(tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "WINDOW", 0.1)
    profile = Profile(tmp_path, "cpu")
    start, late = torch.randn(40, 40), torch.randn(3, 3)
    with profile.stage("long"):
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            start @ start
            time.sleep(0.001)  # what is traced has to be read again, and that takes far longer
        torch.linalg.det(late)
    (stage,) = profile.stages
    assert stage.seconds >= 0.3
    with gzip.open(stage.trace, "rt") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert "aten::mm" in names
    assert "aten::_linalg_det" not in names
