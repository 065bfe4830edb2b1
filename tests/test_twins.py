"""Aligned twins of controls: fitted to checkpoints whose hidden units are aligned."""

import dataclasses

import pytest
import torch

from bench import declared
from bench.contract import Control
from bench.judge import align
from bench.records import check
from bench.records.request import Request
from bench.runs import pipeline
from bench.runs.assemble import heading
from tests.networks import shuffled

WHOLE = {"epochs": 1, "batch_size": 20, "arch": "mlp3", "track": "seeds", "layers": "all"}


def run(**settings):
    own = WHOLE | settings
    return pipeline.Run(
        Request(task="fake", generator="copy", task_settings=own, k=4, samples=6, device="cpu")
    )


@pytest.fixture
def one_network():
    """A run, and a zoo whose checkpoints are one network with its hidden units in several orders."""
    made = run()
    zoo, _ = made.zoo()
    orders = [zoo.vectors[0], *(shuffled(zoo, 0, seed) for seed in range(1, 4))]
    return made, dataclasses.replace(zoo, vectors=torch.stack(orders), curve=(), scores=())


def functions(made, zoo, vectors):
    return made.scorer(zoo, "val")(vectors).outputs


def test_a_twin_stands_beside_its_control(one_network):
    made, zoo = one_network
    controls = [control for control, _, _ in made.controls(zoo)]
    assert controls == [*declared.controls(), *declared.twins()]
    populations = made.score_controls(zoo)
    assert [one.key for one in populations] == [str(control) for control in controls]
    assert {one.origin.aligned for one in populations} == {False, True}
    counts = {one.key: len(one) for one in populations}
    assert counts["gaussian"] == counts["aligned gaussian"] == counts["noise 0.1"] == 3
    assert counts["copy"] == counts["shuffled"] == 6
    assert counts["finetune"] == counts["aligned average"] == 1


def test_an_aligned_average_of_one_network_is_that_network(one_network):
    made, zoo = one_network
    vectors = dict(made.control_vectors(zoo))
    network = functions(made, zoo, zoo.vectors[:1])
    aligned = functions(made, zoo, vectors[Control("average", aligned=True)])
    torch.testing.assert_close(aligned, network, atol=1e-5, rtol=0)
    assert (functions(made, zoo, vectors[Control("average")]) - network).norm() > 0.01
    for twin in declared.twins():
        same = functions(made, zoo, vectors[twin])
        torch.testing.assert_close(same, network.expand_as(same), atol=1e-4, rtol=0)


def test_checkpoints_are_aligned_once_in_a_run(one_network, monkeypatch):
    made, zoo = one_network
    calls = []
    monkeypatch.setattr(pipeline, "align_zoo", lambda zoo: calls.append(1) or align.align_zoo(zoo))
    first = dict(made.control_vectors(zoo))
    assert calls == [1]
    again = dict(run().control_vectors(zoo))  # from the store
    assert all(torch.equal(again[control], first[control]) for control in first)


def test_a_twin_draws_the_same_whatever_is_generated(one_network):
    _, zoo = one_network
    found = []
    for generator in ("copy", "gaussian"):
        other = pipeline.Run(
            dataclasses.replace(run().request, generator=generator, seed=7, force=True)
        )
        found.append(dict(other.control_vectors(zoo))[Control("gaussian", aligned=True)])
    assert torch.equal(*found)


def test_a_method_that_aligns_sees_aligned_checkpoints_where_units_can_be_permuted(one_network):
    _, zoo = one_network
    settings = {"components": 0, "iterations": 1}
    request = dataclasses.replace(run().request, generator="flow", generator_settings=settings)
    made = pipeline.Run(request)
    assert made.aligns(zoo)
    assert heading(made, zoo).generator.aligned
    drawn = made.generate(zoo, 2, timed=False).vectors
    torch.testing.assert_close(drawn, zoo.vectors[:1].expand_as(drawn), atol=1e-6, rtol=0)
    assert not made.aligns(zoo.head(1))
    frozen = dataclasses.replace(zoo, base={"8.weight": torch.ones(1)})
    assert not made.aligns(frozen)
    unaligned = dataclasses.replace(request, generator_settings={**settings, "align": False})
    assert not pipeline.Run(unaligned).aligns(zoo)
    assert pipeline.Run(dataclasses.replace(unaligned, align=True)).aligns(zoo)


@pytest.mark.parametrize(
    "settings",
    [{"track": "trajectory", "layers": "linear"}, {"arch": "convnet3", "layers": "last-norms:2"}],
)
def test_a_zoo_with_frozen_parts_has_no_twins(settings):
    made = run(**settings)
    zoo, _ = made.zoo()
    assert [control for control, _, _ in made.controls(zoo)] == list(declared.controls())


def test_one_checkpoint_and_large_zoos_have_no_twins(one_network, monkeypatch):
    made, zoo = one_network
    assert not any(control.aligned for control, _, _ in made.controls(zoo.head(1)))
    monkeypatch.setattr(align, "LARGEST", zoo.vectors.numel() - 1)
    assert not any(control.aligned for control, _, _ in made.controls(zoo))


def test_the_first_protocol_is_repeated(tmp_path):
    request = dataclasses.replace(run().request, results=tmp_path)
    record, path = pipeline.Run(request, protocol=1).execute()
    assert record.protocol.version == 1
    assert "aligned average" not in record.controls
    assert record.populations["noise 0.1"].n == 1
    assert record.populations["gaussian"].n == 6
    assert check.check(path) == []
    later, _ = pipeline.Run(request).execute()
    assert later.key != record.key
    assert later.zoo.hash == record.zoo.hash
    assert later.artifacts.zoo == record.artifacts.zoo
