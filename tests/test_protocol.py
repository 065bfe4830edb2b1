import pytest

from bench.contract import Control
from bench.records import protocol


def test_the_first_protocol_has_the_controls_of_its_records():
    found = protocol.controls(1, 100, alignable=True)
    assert list(map(str, found)) == [
        "average", "copy", "finetune", "gaussian", "greedy_soup", "interpolation", "noise 0.003", "noise 0.01",
        "noise 0.03", "noise 0.1", "noise 0.3", "noise 1", "noise 3", "noise 10",
    ]  # fmt: skip
    assert found[Control("noise", 0.1)] == found[Control("finetune")] == 25
    assert found[Control("average")] == found[Control("greedy_soup")] == 1
    assert found[Control("copy")] == found[Control("gaussian")] == 100
    assert protocol.controls(1, 3, alignable=False)[Control("noise", 10.0)] == 1


def test_every_control_has_as_many_models_as_the_generator():
    found = protocol.controls(protocol.PROTOCOL, 100, alignable=False)
    assert not any(control.aligned for control in found)
    counts = {control.name: count for control, count in found.items()}
    one, fewer = dict.fromkeys(("average", "greedy_soup"), 1), {"noise": 50, "finetune": 25}
    assert counts == {**dict.fromkeys(counts, 100), **one, **fewer}


def test_a_control_shares_its_models_with_its_twin():
    apart = protocol.controls(protocol.PROTOCOL, 100, alignable=False)
    both = protocol.controls(protocol.PROTOCOL, 100, alignable=True)
    twins = [control for control in both if control.aligned]
    assert list(both) == [*apart, *twins]
    names = {control.name for control in twins}
    assert names == {"average", "full_gaussian", "gaussian", "greedy_soup", "interpolation", "low_rank_gaussian",
                     "mean_of_two", "step"}  # fmt: skip
    for control, count in both.items():
        whole = apart[Control(control.name, control.amplitude)]
        assert count == (whole // 2 if control.name in names and whole > 1 else whole)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_there_is_no_control_without_models(samples):
    assert min(protocol.controls(protocol.PROTOCOL, samples, alignable=True).values()) == 1
