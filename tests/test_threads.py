"""Small work runs on one thread, whatever the number of cores."""

import contextlib
from pathlib import Path

import pytest
import torch

from bench.records.request import Request
from bench.runs import pipeline
from bench.system.threads import one_thread
from tasks.classification import Classification


@pytest.fixture
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_the_number_of_threads_is_put_back():
    with one_thread(False):
        assert torch.get_num_threads() == 2
    with contextlib.suppress(ValueError), one_thread(True):
        assert torch.get_num_threads() == 1
        raise ValueError
    assert torch.get_num_threads() == 2


def test_what_is_small_follows_from_declarations_alone(monkeypatch):
    monkeypatch.setattr(Classification, "data", property(lambda task: 1 / 0))
    assert Classification(dataset="digits", arch="convnet3", batch_size=25).small
    assert Classification(dataset="mnist", arch="mlp3").small
    assert not Classification(dataset="cifar100", arch="resnet18").small
    assert not Classification(dataset="digits", arch="convnet3", pretrained="released").small


@pytest.mark.usefixtures("_two_threads")
def test_a_run_of_small_networks_takes_one_thread(monkeypatch, tmp_path):
    seen = {}
    for name in ("collect", "scorer"):

        def noted(self, *given, _name=name, _call=getattr(Classification, name), **named):
            seen[_name] = torch.get_num_threads()
            return _call(self, *given, **named)

        monkeypatch.setattr(Classification, name, noted)
    settings = {"epochs": 1, "batch_size": 20, "val_size": 20}
    request = Request(
        "fake", "copy", settings, k=2, samples=1, held_out=0, device="cpu", results=tmp_path
    )
    run = pipeline.Run(request)
    zoo, path = run.zoo()
    assert isinstance(path, Path)
    run.score(zoo, run.generate(zoo, timed=False).vectors, None)
    assert seen == {"collect": 1, "scorer": 1}
    assert torch.get_num_threads() == 2
