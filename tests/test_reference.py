"""The second path of ``bench verify --reference``: other people's code agrees with records, and finds forged ones."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bench.errors import BadRequest
from bench.records.record import Record
from bench.records.request import Request
from bench.runs import pipeline, reference
from bench.runs.stages import load_sampled
from bench.runs.verify import vectors
from bench.system.randomness import generator
from tasks import plain
from tasks.fast.confusion import mean_iou, pixel_accuracy
from tasks.fast.upsampling import confusion
from tests.standins import QUICK, call
from tests.tiny import Tiny

TASKS = {
    "classification": "digits",
    "detection": "shapes",
    "segmentation": "shapes-seg",
    "image generation": "digits-ddpm",
}
# Metrics beside the headline that other implementations give too.
FURTHER = {
    "classification": [],
    "detection": ["AP50", "AP75", "mAP medium", "mAP small"],
    "segmentation": ["pixel accuracy"],
    "image generation": [],
}
POPULATIONS = ("original", "generated", "average", "noise 10")


@pytest.fixture(scope="module", params=TASKS)
def finished(request, tmp_path_factory):
    """A finished run of a task of each kind: its record, task, checkpoints and the models of a few populations."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder / "home"))
        asked = Request(
            task=TASKS[request.param], generator="gaussian", task_settings=QUICK[request.param], k=3, samples=3,
            held_out=0, results=folder / "results", device="cpu",
        )  # fmt: skip
        record, path = pipeline.run(asked)
        run = pipeline.Run(asked)
        zoo, _ = run.zoo()
        sampled = load_sampled(folder / "home" / "generated" / record.artifacts.generated.file)
        models = {name: vectors(run, zoo, sampled, None)[name] for name in POPULATIONS}
        yield SimpleNamespace(record=record, path=path, task=run.task, zoo=zoo, models=models)


def wrong(checks):
    return [check.field for check in checks if check.problem]


def forged(record: Record, name: str, **changes) -> Record:
    """The record with another population of this name."""
    population = record.populations[name].model_copy(update=changes)
    return record.model_copy(update={"populations": {**record.populations, name: population}})


def shifted(record: Record, name: str, by: float) -> Record:
    """The record with every score of a population moved: consistent in itself."""
    population = record.populations[name]
    moved = {
        n: getattr(population, n) + by
        for n in ("best", "selected", "mean", "median", "worst", "low", "high")
    }
    return forged(record, name, values=[value + by for value in population.values], **moved)


def test_an_honest_record_agrees(finished):
    checks = reference.compare(finished.record, finished.task, finished.zoo, finished.models)
    assert wrong(checks) == []
    assert {check.field.split(".")[1] for check in checks} == set(POPULATIONS)


@pytest.mark.parametrize("name", ["generated", "average"])
def test_a_forged_record_is_found_out(finished, name):
    score = finished.record.populations[name].values[0]
    offered = finished.task.plain(finished.zoo)
    by = 1.5 * max(offered.absolute, offered.relative * abs(score))
    record = shifted(finished.record, name, by)
    checks = reference.compare(record, finished.task, finished.zoo, finished.models)
    assert {field.split(".")[1] for field in wrong(checks)} == {name}
    assert any(field.startswith(f"reference.{name}.values.") for field in wrong(checks))


def test_a_forged_further_metric_of_the_selected_model_is_found_out(finished):
    population = finished.record.populations["average"]
    offered = finished.task.plain(finished.zoo)
    measured = reference.measure(offered, finished.zoo.layout, finished.models["average"][0])
    further = {**population.further}
    compared = sorted({*further} & {*measured})
    assert compared == FURTHER[finished.task.kind]
    for name in compared:
        lifted = further[name].model_copy(update={"selected": further[name].selected + 0.01})
        record = forged(finished.record, "average", further={**further, name: lifted})
        models = {"average": finished.models["average"]}
        checks = reference.compare(record, finished.task, finished.zoo, models)
        assert wrong(checks) == [f"reference.average.further.{name}.selected"]


@pytest.mark.parametrize("finished", ["classification"], indirect=True)
def test_scores_of_models_that_do_not_exist_are_found_out(finished):
    models = {"generated": finished.models["generated"][:2]}
    (check,) = reference.compare(finished.record, finished.task, finished.zoo, models)
    assert check.field == "reference.generated.values"
    assert check.problem == "the record has 3 scores of 2 models"


def test_the_models_are_drawn_by_the_records_id():
    rows = [reference.chosen(100, None, generator(0, name)) for name in "aab"]
    assert rows[0] == rows[1] != rows[2]
    assert len(rows[0]) == reference.MODELS
    assert 57 in reference.chosen(100, 57, generator(0, "a"))
    assert reference.chosen(2, 1, generator(0, "a")) == [0, 1]


@pytest.mark.parametrize("finished", ["classification"], indirect=True)
def test_the_command_compares_on_request(finished, capsys, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(finished.path.parents[2] / "home"))
    assert call("verify", finished.path, "--device", "cpu", "--reference") == 0
    out = capsys.readouterr().out
    for name in ("original", "generated", "average", "noise 10", "finetune"):
        assert f"reference.{name}: agrees" in out
    assert out.endswith("verified: rescored\n")


@pytest.mark.parametrize("finished", ["classification"], indirect=True)
def test_a_task_without_a_plain_network_is_refused(finished):
    with pytest.raises(BadRequest, match="Tiny cannot be compared with other implementations"):
        reference.compare(finished.record, Tiny(), finished.zoo, finished.models)


# What is not finite --------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Gives the next of these outputs."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = iter(outputs)

    def forward(self, *_):
        return next(self.outputs)


def test_an_image_with_a_logit_that_is_not_finite_is_wrong():
    logits = torch.eye(4)
    logits[1, 3], logits[2, 0] = torch.nan, -torch.inf
    measure = plain.accuracy(
        torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4),
        size=2, mean=[0.5], std=[0.5], classes=4, device="cpu",
    )  # fmt: skip
    assert measure(Fixed([logits])) == {"accuracy": 0.5}


def test_pixels_near_a_logit_that_is_not_finite_get_no_class():
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(3, 3, 5, 5, generator=rng)
    coarse[0, 1, 2, 2], coarse[1, 0, 0, 4] = torch.nan, torch.inf
    masks = torch.randint(3, (3, 20, 20), generator=rng).to(torch.uint8)
    masks[2, :7] = 255
    measure = plain.jaccard(
        torch.zeros(3, 3, 20, 20, dtype=torch.uint8), masks,
        mean=[0.5] * 3, std=[0.5] * 3, classes=3, device="cpu",
    )  # fmt: skip
    matrix = confusion(coarse[None], masks)
    expected = {
        "mean IoU": float(mean_iou(matrix)),
        "pixel accuracy": float(pixel_accuracy(matrix)),
    }
    assert measure(Fixed([coarse])) == pytest.approx(expected)


@pytest.mark.parametrize("finished", ["detection", "image generation"], indirect=True)
def test_a_detector_or_image_that_is_not_finite_is_not_compared(finished, capsys):
    broken = torch.full_like(finished.models["average"], torch.inf)
    checks = reference.compare(finished.record, finished.task, finished.zoo, {"average": broken})
    assert checks == []
    assert "reference.average: model 0 puts out what is not finite" in capsys.readouterr().err
