import dataclasses

from bench.records.request import Request
from bench.study.graph import Node, build
from bench.study.past import longest
from bench.study.recipe import Needs

BASE = Request(task="tests.tiny:Tiny", generator="tests.tiny:Jitter", k=5, samples=4)


def graph(*changes: dict, **needs: Needs) -> list[Node]:
    return build([dataclasses.replace(BASE, **change) for change in changes], needs)


def kinds(nodes: list[Node]) -> list[str]:
    return [node.kind for node in nodes]


def test_a_run_has_four_stages_in_their_order():
    nodes = graph({})
    assert kinds(nodes) == ["collect", "controls", "fit", "record"]
    collect, controls, fit, record = nodes
    assert controls.after == fit.after == (collect.id,)
    assert set(record.after) == {controls.id, fit.id}


def test_each_stage_comes_after_what_it_needs():
    nodes = graph({}, {"seed": 1}, {"k": 9}, {"task_settings": {"layers": "other"}})
    seen = set()
    for node in nodes:
        assert set(node.after) <= seen
        seen.add(node.id)
    assert len(seen) == len(nodes)


def test_generators_and_seeds_share_zoo_and_controls():
    nodes = graph(
        {}, {"seed": 1}, {"generator": "average"}, {"generator_settings": {"amplitude": 0.2}}
    )
    assert kinds(nodes).count("collect") == kinds(nodes).count("controls") == 1
    assert kinds(nodes).count("fit") == kinds(nodes).count("record") == 4


def test_the_largest_zoo_is_collected_once():
    nodes = graph({"k": 3}, {"k": 9}, {"k": 5})
    (collect,) = [node for node in nodes if node.kind == "collect"]
    assert collect.request.collected == 9
    assert {node.request.collected for node in nodes} == {9}
    assert kinds(nodes).count("controls") == kinds(nodes).count("fit") == 3


def test_a_fit_is_shared_by_what_samples_from_it():
    nodes = graph({}, {"samples": 9}, {"min_score": 0.5})
    (fit,) = [node for node in nodes if node.kind == "fit"]
    assert fit.samples == (4, 9)
    assert kinds(nodes).count("record") == 3
    assert kinds(nodes).count("controls") == 2  # there are as many of them as samples


def test_zoos_that_differ_beside_their_base_share_it():
    layers = [{"task_settings": {"layers": name}} for name in ("all", "other")]
    nodes = graph(*layers)
    (base,) = [node for node in nodes if node.kind == "base"]
    collects = [node for node in nodes if node.kind == "collect"]
    assert [node.after for node in collects] == [(base.id,)] * 2
    assert "base" not in kinds(graph(layers[0]))  # nobody to share it with
    other = graph(layers[0], {"task_settings": {"spread": 0.5}})
    assert "base" not in kinds(other)


def test_what_is_the_default_anyway_is_the_same_zoo():
    nodes = graph({}, {"task_settings": {"layers": "all"}, "seed": 1})
    assert kinds(nodes).count("collect") == 1


def test_what_decides_the_checkpoints_makes_another_zoo():
    changes = [{"zoo_seed": 1}, {"data_dir": "x"}, {"task_settings": {"spread": 0.1}}]
    assert kinds(graph({}, *changes)).count("collect") == 4


def test_the_same_stage_has_the_same_id_in_every_study():
    alone, together = graph({"seed": 1}), graph({}, {"seed": 1})
    assert {node.id for node in alone} <= {node.id for node in together}


def test_needs_by_kind():
    nodes = graph({}, collect=Needs(cpus=3))
    assert [node.needs.cpus for node in nodes] == [3, 1, 1, 1]


def test_the_longest_chain():
    nodes = graph({}, {"seed": 1})
    seconds = {
        node.id: {"collect": 5.0, "controls": 2.0, "fit": 3.0}.get(node.kind, 1.0) for node in nodes
    }
    assert longest(nodes, seconds) == 9
