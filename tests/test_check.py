import hashlib
import json
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.errors import BadRequest
from bench.records import check, export, record, side
from bench.records.checks import identity, tiers
from bench.records.checks.case import Case
from bench.records.judged import KINDS
from bench.records.record import Record, content_hash
from bench.records.request import Request
from bench.runs import verify
from bench.runs.pipeline import Run
from bench.system.store import digest, file_hash
from tasks.fast import features
from tests.standins import call

ROOT = Path(__file__).parents[1]
FORGED = ROOT.parent / "shared" / "faults" / "forged"
SETTINGS = {"arch": "mlp3", "epochs": 1, "batch_size": 20, "track": "seeds", "layers": "all"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run: its store and its record."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder / "home"))
        request = Request(
            task="fake", generator="gaussian", task_settings=SETTINGS, k=12, samples=40, held_out=4,
            device="cpu", min_score=0.5, results=folder / "results",
        )  # fmt: skip
        _, path = Run(request).execute()
    return folder, path


@pytest.fixture
def path(finished, tmp_path, monkeypatch):
    """A copy of the record and its side file; the store is where it was."""
    folder, original = finished
    monkeypatch.setenv("BENCH_HOME", str(folder / "home"))
    copy = tmp_path / original.parent.name / original.name
    copy.parent.mkdir()
    for suffix in (".json", ".npz"):
        copy.with_suffix(suffix).write_bytes(original.with_suffix(suffix).read_bytes())
    return copy


def inner(data, name):
    """The container of a dotted name's last part, and that part."""
    *folders, last = name.split(".")
    for part in folders:
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data, int(last) if isinstance(data, list) else last


def changed(path, fields):
    """Write other values at dotted names."""
    data = json.loads(path.read_text())
    for name, value in fields.items():
        folder, last = inner(data, name)
        folder[last] = value(folder[last]) if callable(value) else value
    path.write_text(json.dumps(data))


def with_arrays(path, change):
    """Write another side file, and name it in the record."""
    arrays = side.read(path.with_suffix(".npz"))
    change(arrays)
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    changed(path, {"artifacts.side.sha256": file_hash(path.with_suffix(".npz"))})


def told(path, problem):
    """The file has a problem with this text in it, and all are single lines."""
    problems = check.check(path)
    assert any(problem in found for found in problems), problems
    assert all(found.isprintable() for found in problems)
    assert not any("cannot be checked" in found for found in problems), problems


def same(values):
    """The statistics of a population whose models all have one score."""
    one = values[0]
    names = ("best", "selected", "mean", "median", "worst", "low", "high")
    return dict.fromkeys(names, one) | {
        "std": 0.0 if len(values) > 1 else None,
        "values": values,
        "n": len(values),
    }


def test_what_a_run_writes_is_all_right(path):
    assert check.check(path) == []
    assert check.files([path.parent.parent]) == [path]


def test_the_first_shipped_record_of_every_board_is_all_right():
    """CI checks all of them, with the command that everybody has."""
    boards = sorted(path for path in (ROOT / "leaderboard" / "results").iterdir() if path.is_dir())
    found = {file: check.check(file) for board in boards for file in check.files([board])[:1]}
    assert len(found) == len(boards) >= 23
    assert {file: problems for file, problems in found.items() if problems} == {}


@pytest.mark.skipif(not FORGED.is_dir(), reason="no forged records here")
def test_every_forged_record_is_found_and_the_honest_one_is_all_right():
    found = {folder.name: check.files([folder]) for folder in FORGED.iterdir()}
    passed = {name for name, files in found.items() if not any(check.check(f) for f in files)}
    assert passed == {"baseline"}


def test_checking_does_not_load_torch():
    lines = (
        "import sys",
        "from pathlib import Path",
        "from bench.records import check",
        f"check.check(sorted(Path({str(ROOT)!r}, 'leaderboard', 'results').rglob('*.json'))[0])",
        "print('torch' in sys.modules)",
    )
    done = subprocess.run(
        [sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def without_part(name):
    """Leave one of the parts out."""
    return lambda parts: {key: one for key, one in parts.items() if key != name}


def elsewhere(mixture):
    """Another mixture: wholly new, or where it was mostly so, wholly copies."""
    kind = "copies" if mixture["new"]["value"] > 0.5 else "new"
    return mixture | {one: ALL if one == kind else NOTHING for one in KINDS}


P, BESIDE = "populations", "judge.against_reference"
NOTHING, ALL, FAR = ({"value": v, "low": v, "high": v} for v in (0.0, 1.0, 0.9))
QUALITY = {"difference": FAR, "margin": 0.005, "equivalence": 1.0}
INTERVAL = {"value": 0.5, "low": 0.49, "high": 0.51}
NOISE = "judge.advantages.noise"
ERROR = {"task.metric": lambda v: {**v, "higher_is_better": False, "mean_over_units": False}}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        # What was run
        ({"id": "0" * 16}, "the file should be named 0000"),
        ({"id": "0" * 16}, "id is 0000000000000000, expected "),
        ({"protocol.seed": 7}, "id is "),
        ({"generator.name": "my.great:Generator"}, "id is "),
        ({"generator.hyperparameters": {"depth": 3}}, "id is "),
        ({"timing.device": "a GPU", "environment.gpu": "a GPU"}, "id is "),
        ({"task.arch": "convnet3"}, "key is not that of its task"),
        ({"zoo.hash": "0" * 64}, "key is not that of its task"),
        ({"artifacts.generated.file": "x.safetensors"}, "artifacts.generated.file is x.safetensors, expected 16"),
        ({"task.settings.batch_size": 40}, "task.settings.batch_size is 40, expected 20"),
        ({"zoo.seed": 5}, "command's --zoo-seed is 0, expected 5"),
        ({"artifacts.side.file": "other.npz"}, "artifacts.side.file is other.npz"),
        ({"task.kind": "detection"}, "task.kind is detection, expected classification"),
        ({"task.metric.name": "mAP"}, "task.metric.name is mAP, expected accuracy"),
        ({"task.compared.units": "boxes"}, "task.compared.units is boxes"),
        ({"task.compared.features": True}, "task.compared.features is True, expected False"),
        (ERROR, "task.metric.higher_is_better is False, expected True"),
        (ERROR, "expected worst <= median <= best"),
        ({"task.dataset": "mnist"}, "task.settings.dataset is fake, expected mnist"),
        ({"task.settings.val_size": 7}, "task.settings.val_size is 7"),
        ({"protocol.train_size": 7}, "task.settings.train_size is "),
        ({"zoo.track": "trajectory"}, "task.settings.track is seeds, expected trajectory"),
        ({"zoo.track": "imported"}, "zoo.track is imported"),
        ({"generator.aligned": True}, "populations.generated.aligned is False, expected True"),
        ({"generator.uses": ["train"]}, "generator.uses is ['train'], expected []"),
        ({"generator.uses": ["labels"]}, "expected some of ['score', 'train']"),
        ({"protocol.selection": "best of all"}, "protocol.selection is best of all"),
        ({"protocol.preset": "huge"}, "protocol.preset is huge, expected quick or paper"),
        ({"protocol.version": 3}, "protocol.version is 3, expected 1 or 2"),
        ({"environment.gpu": "a GPU"}, "environment.gpu is a GPU, expected null"),
        ({"environment.git_commit": "latest"}, "environment.git_commit is latest"),
        # The command
        ({"request.task": "mnist"}, "command's --task is mnist, expected fake"),
        ({"request.generator": "vae"}, "command's --generator is vae"),
        ({"request.seed": 1}, "command's --seed is 1, expected 0"),
        ({"request.zoo_seed": 1}, "command's --zoo-seed is 1, expected 0"),
        ({"request": lambda v: {**v, "k": None}}, "command's --k is 200, expected 12"),
        ({"request": lambda v: {**v, "samples": None}}, "command's --samples is 100"),
        ({"request.preset": "paper"}, "command's --preset is paper"),
        ({"request.align": True}, "generator.aligned is False, expected True (by the command"),
        ({"generator.hyperparameters.align": True}, "generator.aligned is False, expected True (by the command"),
        ({"request.min_score": 0.7}, "command's --min-score is 0.7, expected 0.5"),
        ({"request.task_settings.arch": "convnet3"}, "task.settings.arch is mlp3, expected convnet3"),
        ({"request.task_settings.epochs": 9}, "task.settings.epochs is 1, expected 9"),
        ({"request.task_settings": {}}, "expected 2 (by the command"),
        ({"request.generator_settings": {"depth": 3}}, "hyperparameters.depth is missing, expected 3"),
        ({"request.zoo": "a.zoo"}, "command's --zoo is a.zoo, expected"),
        ({"zoo.seed": None}, "zoo.seed is null, expected 0 (the command gives no zoo)"),
        ({"judge.good": None}, "command's --min-score is 0.5, expected null"),
        # Beside the reference
        ({"judge.word": "novel"}, "judge.word is novel, expected undecided (by rule 2 on its numbers)"),
        ({"judge.rule": 1}, "judge.rule is 1, expected 2 (there is a reference)"),
        ({"judge.rule": 3}, "judge.rule is 3, expected 2"),
        ({"judge.rule": None}, "judge.rule is null, expected "),
        ({"judge.resolution": 0.99}, "judge.resolution is 0.99, expected "),
        ({"judge.resolution": None}, "judge.resolution is null, expected "),
        ({f"{BESIDE}.generated.composition.new": {**FAR, "low": 0.0}}, "the shares do not sum to 1"),
        ({f"{BESIDE}.reference.composition": elsewhere}, "judge.resolution is "),
        ({f"{BESIDE}.generated.copying.p": 0.5}, "generated.copying.p is 0.5, expected "),
        ({f"{BESIDE}.reference.copying.nearer": 3}, "reference.copying.nearer is 3, expected 2 (there are no more"),
        ({f"{BESIDE}.gaussian.copying.nearer": lambda v: v + 1}, "gaussian.copying.p is "),
        ({f"{BESIDE}.generated.quality.difference": FAR}, "generated.quality.difference is 0.9, expected "),
        ({f"{BESIDE}.aligned gaussian.quality.difference": FAR}, "aligned gaussian.quality.difference is 0.9"),
        ({f"{BESIDE}.generated.quality.margin": 0.01}, "generated.quality.margin is 0.01, expected 0.005"),
        ({f"{BESIDE}.generated.quality": None}, "generated.quality is null, expected a value for two models or more"),
        ({f"{BESIDE}.average.quality": QUALITY}, "average.quality is "),
        ({BESIDE: without_part("gaussian")}, "judge.against_reference is ["),
        ({P: without_part("reference")}, "artifacts.reference is "),
        ({P: without_part("reference"), "artifacts.reference": None}, "judge.against_reference is ["),
        ({"artifacts.reference": None}, "artifacts.reference is null, expected a file (by its population)"),
        ({"protocol.held_out": 9}, "populations.reference is of 4 models, expected 9"),
        ({"reference": None}, "reference is null, expected where it comes from"),
        ({"reference.origin": "other runs"}, "reference.origin is other runs, expected training (by zoo.track)"),
        ({"reference.runs": 3}, "reference.runs is 3, expected 4"),
        ({"protocol.held_out": 9}, "id is "),
        ({BESIDE: {}}, "judge.resolution is "),
        # Scores
        ({"protocol.samples": 99}, "populations.generated has not one value for each sample"),
        ({f"{P}.original.best": 2.0}, "populations.original"),
        ({f"{P}.generated.low": lambda v: v - 0.001}, "(of the bootstrap of its values)"),
        ({P: lambda v: {n: one for n, one in v.items() if n != "noise 1"}}, "has no control noise 1"),
        ({P: lambda v: {n: one for n, one in v.items() if n != "copy"}}, "has no control copy"),
        ({P: lambda v: {**v, "aligned copy": {**v["copy"], "aligned": True}}}, "aligned copy is no control"),
        ({P: lambda v: {n: one for n, one in v.items() if not one["aligned"]}}, "no control aligned average"),
        ({P: lambda v: {n: one for n, one in v.items() if n != "step"}}, "has no control step"),
        ({f"{P}.copy": lambda v: {**v, **same(v["values"][:3])}}, "populations.copy is of 3 models"),
        ({f"{P}.step": lambda v: {**v, **same(v["values"][:1] * 40)}}, "populations.step is of 40 models, expected 20"),
        ({f"{P}.average": lambda v: {**v, **same([0.123])}}, "no shares of 40 validation examples"),
        ({f"{P}.average": lambda v: {**v, **same([1.5])}}, "accuracy is not between 0 and 1"),
        ({f"{P}.average": lambda v: {**v, **same([1.0])}}, "right_best.average is right "),
        ({f"{P}.average": lambda v: {**v, **same([1.0])}}, "(of right_mean in the side file)"),
        ({f"{P}.copy": lambda v: {**v, **same([0.025] * 40)}}, "expected the score of an original"),
        ({f"{P}.average.further": {"x": {"mean": 1.0, "selected": 1.0}}}, "expected [] (as of the"),
        ({f"{P}.copy.not_finite": None}, "expected counted in all or in none"),
        ({f"{P}.copy.not_finite": 1}, "populations.copy.not_finite is 1, expected 0 (of copies)"),
        ({"zoo.base_score": 0.111}, "zoo.base_score is 0.111"),
        ({"zoo.base_score": None}, "zoo.base_score is null"),
        # Paired tests
        ({"judge.tests": None}, "judge.tests is null, expected wins and losses"),
        ({"judge.tests.best_original.p": lambda v: v / 2}, "judge.tests.best_original.p is "),
        ({"judge.tests.average.wins": lambda v: v + 50}, "expected at most 40 units in all"),
        ({"judge.tests.average.wins": lambda v: v + 1}, "judge.tests.average: wins - losses is"),
        (
            {"judge.tests.average.wins": lambda v: v + 2, "judge.tests.average.losses": lambda v: v + 2},
            "judge.tests.average.losses is",
        ),
        # Similarity
        ({f"{P}.original.similarity.within": INTERVAL}, "original.similarity.within.value is 0.5"),
        ({f"{P}.generated.similarity.within": INTERVAL}, "generated.similarity.within.low is 0.49"),
        ({f"{P}.generated.similarity.originals": INTERVAL}, "similarity.originals.value is 0.5"),
        ({f"{P}.generated.similarity.nearest": INTERVAL}, "generated.similarity.nearest.value is 0.5"),
        ({f"{P}.generated.similarity.nearest.low": lambda v: v - 0.01}, "similarity.nearest.low"),
        ({f"{P}.generated.similarity.within": None}, "several alone"),
        ({f"{P}.copy.similarity.nearest.value": 0.5}, "a copy's similarity to the nearest original is 1"),
        ({f"{P}.gaussian.similarity.nearest.value": 0.999}, "gaussian.similarity.nearest is 0.999"),
        ({f"{P}.gaussian.similarity.originals.value": 0.001}, "similarity.originals is 0.001, expected"),
        ({f"{P}.interpolation.similarity.within.value": 0.001}, "within.value is 0.001, expected"),
        ({f"{P}.average.similarity.within": {"value": 0.5}}, "average.similarity.within: expected for several"),
        ({f"{P}.average.similarity.nearest.value": 0.0}, "populations.average.similarity"),
        ({f"{P}.copy.similarity.nearest": None}, "copy.similarity: the similarity to the originals is missing"),
        ({f"{P}.original.similarity.nearest": INTERVAL}, "original.similarity.nearest.value is 0.5"),
        ({f"{P}.original.similarity.nearest.low": lambda v: v - 0.01}, "original.similarity.nearest.low"),
        ({f"{P}.original.similarity.nearest": None}, "nearest: expected for several originals"),
        ({f"{P}.original.similarity.originals": INTERVAL}, "similarity to the originals is within"),
        ({f"{P}.gaussian.similarity.kappa": None}, "gaussian.similarity.kappa: expected where models have wrong units"),
        ({f"{P}.gaussian.similarity.kappa.within": None}, "gaussian.similarity.kappa.within: expected a number"),
        ({f"{P}.original.similarity.kappa.originals": 0.5}, "original.similarity.kappa.originals: expected null"),
        ({f"{P}.gaussian.similarity.kappa.nearest": -0.9}, "agrees less than originals do on average"),
        ({f"{P}.gaussian.similarity.kappa.nearest": 1.5}, "less than or equal to 1"),
        ({f"{P}.copy.similarity.kappa.nearest": 0.9}, "copy.similarity.kappa.nearest is 0.9, expected 1"),
        ({f"{P}.original.similarity.kappa.within": lambda v: v - 0.01}, "original.similarity.kappa.within is"),
        ({f"{P}.original.similarity.kappa.nearest": lambda v: v - 0.001}, "original.similarity.kappa.nearest is"),
        ({f"{P}.generated.similarity.kappa.within": lambda v: v + 0.01}, "generated.similarity.kappa.within is"),
        ({f"{P}.generated.similarity.kappa.originals": lambda v: v - 0.01}, "similarity.kappa.originals is"),
        ({f"{P}.generated.similarity.kappa.nearest": lambda v: v + 0.01}, "similarity.kappa.nearest is"),
        ({"judge.good.generated": lambda v: v + 1}, "judge.good.generated is"),
        ({"judge.good.original_generated": 0.999}, "judge.good.original_generated is"),
        # Novelty
        ({"judge.word": "novel"}, "judge.word is novel, expected "),
        ({"judge.word": None}, "judge.word is null"),
        ({"judge.rule": None}, "judge.rule is null, expected 1"),
        ({"judge.sees_training": True}, "judge.sees_training is True, expected null (rule 1 alone gives it)"),
        ({"judge.collapsed": lambda v: not v}, "judge.collapsed is "),
        ({"judge.median_novelty": 0.99}, "judge.median_novelty is 0.99"),
        ({"judge.median_novelty": None}, "judge.median_novelty is null"),
        ({f"{NOISE}.beyond": 0.51}, f"{NOISE}.beyond is 0.51, expected a share of 40 models"),
        ({f"{NOISE}.beyond": 1.0}, f"{NOISE}.beyond is 1, expected "),
        ({f"{NOISE}.mean": INTERVAL}, f"{NOISE}.mean.value is 0.5"),
        ({f"{NOISE}.typical": INTERVAL}, f"{NOISE}.typical.value is 0.5"),
        ({f"{NOISE}.mean": None}, f"{NOISE}.mean is null, expected a value"),
        ({"judge.advantages.gaussian.typical": INTERVAL}, "gaussian.typical is there, expected null"),
        ({"judge.advantages": {}}, "judge.advantages is [], expected"),
        ({"judge.origin.toward_mean": None}, "judge.origin.toward_mean is null"),
        # Times
        ({"timing.sample_per_model_s": lambda v: 2 * v}, "timing.sample_per_model_s is "),
        ({"timing.speedup": lambda v: (v or 1) * 2}, "sgd_s over sample_per_model_s"),
        *(({f"timing.speedup_amortised_{n}": lambda v: (v or 1) * 2}, f"timing.speedup_amortised_{n} is ")
          for n in (1, 10, 100)),
        ({"timing.speedup_marginal": lambda v: (v or 1) * 2}, "marginal_s over what one more model costs"),
        ({"timing.select_per_model_s": lambda v: 2 * v}, "timing.select_per_model_s is "),
        ({"timing.sample_repeats_s": [1e6]}, "(the median of sample_repeats_s)"),
        ({"timing.sample_repeats_s": None}, "timing.sample_repeats_s is null, expected the time of each"),
        ({"timing.marginal_s": 1e6}, "timing.marginal_s is 1e+06, expected "),
        ({"timing.base_s": 1e-6}, "(no checkpoint starts from a base)"),
        ({"timing.break_even_models": lambda v: (v or 5) + 2}, "timing.break_even_models is "),
        ({"timing.target_score": lambda v: v / 2}, "the worse of the selected and the best"),
        ({"timing.sgd_s": 1e6}, "timing.sgd_s is 1e+06, expected "),
        ({"timing.sgd_s": None}, "timing.sgd_s is null, expected "),
        ({"timing.collect_s": lambda v: v / 2}, "(when the curve ends)"),
        # How far it was verified
        ({"tier": "regenerated"}, "tier is regenerated, expected claimed"),
        ({"tier": "rescored"}, "tier is rescored, expected claimed"),
        # Files
        ({"artifacts.side.sha256": "0" * 64}, "is not the side file that it names"),
        ({"artifacts.side": None}, "artifacts.side is null, expected the side file"),
        ({"artifacts.zoo.file": "../../etc/passwd"}, "not the plain name of a file"),
        ({"created": "9999-12-31T23:59:59Z"}, "this is in the future"),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_named(path, fields, problem):
    changed(path, fields)
    told(path, problem)


def test_lies_that_agree_with_each_other_are_found_in_the_side_file(path):
    """A whole population of made up scores, with all that the record says of it alone."""
    changed(path, {"populations.generated": lambda v: {**v, **same([1.0] * 40)}})
    for problem in (
        "right_best.generated is right",
        "advantages.noise.mean.value",
        "iou cannot be",
    ):
        told(path, problem)


def test_a_changed_seed_with_all_that_is_named_after_it(path):
    """The id follows the seed; the command does too. Weights of another seed are for verify."""
    found = Record.read(path)
    made = found.generator
    facts = [found.key, made.name, made.code, made.hyperparameters, 3, "cpu"]
    changed(path, {"protocol.seed": 3, "id": digest(facts)})
    told(path, "command's --seed is 0, expected 3")


def scale(name, factor):
    def change(arrays):
        arrays[name] = (arrays[name] * factor).astype(arrays[name].dtype)

    return change


def put(name, array):
    return lambda arrays: arrays.__setitem__(name, array)


def place(name, index, value):
    return lambda arrays: arrays[name].__setitem__(index, value)


def without(*names):
    return lambda arrays: [arrays.pop(name) for name in list(arrays) if name.startswith(names)]


def both(*changes):
    return lambda arrays: [change(arrays) for change in changes]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        # Shapes, and all that is there
        (put("iou", np.ones((1, 1), np.float16)), "'iou' has shape (1, 1), expected (52, 52)"),
        (put("iou_originals", np.array([5], np.int32)), "'iou_originals' has 5 at 0, expected 12"),
        (put("iou_originals", np.array([10**9], np.int32)), "'iou_originals' has 1000000000"),
        (put("map.original", np.ones((12, 1), np.float16)), "expected (12, 2)"),
        (put("weights_index", np.arange(3, dtype=np.int32)), "'weights_index' has shape (3,)"),
        (place("weights_index", 3, 4), "'weights_index' has 4 at 3, expected "),
        (
            put("weights.original", np.ones((8, 3), np.float16)),
            "'weights.original' has shape (8, 3)",
        ),
        (
            put("curve", np.ones((20, 1), np.float32)),
            "'curve' has shape (20, 1), expected (any, 2)",
        ),
        (put("curve", np.ones((3, 2), np.float32)), "'curve' has 3 points, expected 12 to 500"),
        (
            put("units", np.array([40, 10**9], np.int32)),
            "'units' is [40, 1000000000], expected [40",
        ),
        (put("units", np.array([5, 3], np.int32)), "'units' is [5, 3], expected [40, 40]"),
        (put("units", np.array([5], np.int32)), "'units' has shape (1,), expected (2)"),
        (put("train.copy", np.ones(3, np.float32)), "'train.copy' has shape (3,), expected (40)"),
        (put("train.noise 7", np.ones(10, np.float32)), "'train.noise 7' is not among the arrays"),
        (put("latent.original", np.ones((12, 2), np.float16)), "'latent.original' is not among"),
        (put("right_best.copy", np.ones(4, np.uint8)), "'right_best.copy' has shape (4,)"),
        (put("iou", np.full((52, 52), np.nan, np.float16)), "values that are not finite"),
        (
            put("iou", np.ones((52, 52), np.float32)),
            "2 dimensions of float32, expected 2 of float16",
        ),
        (put("other", np.ones(2, np.float32)), "unknown array 'other'"),
        (without("right_", "units"), "'units' is missing, expected shape (2)"),
        (without("right_best.copy"), "'right_best' of copy is missing, expected shape (5)"),
        (without("nearest.generated"), "'nearest' of generated is missing"),
        (without("train"), "'train' of original, reference, generated, average"),
        (without("curve"), "'curve' is missing"),
        (without("map"), "'map' of original, generated, noise 0.1 is missing"),
        (without("weights.random"), "'weights' of random is missing"),
        # Ranges
        (place("iou", (0, 1), 0.123), "iou is not symmetric"),
        (place("iou", (1, 1), 0.5), "iou of a model with itself is not 1"),
        (scale("iou", 1.5), "'iou' is not between"),
        (scale("nearest.copy", -1), "'nearest.copy' is not between 0 and 1"),
        (scale("train.gaussian", 5), "training scores that accuracy cannot have"),
        (place("train.gaussian", 0, 0.123), "train.gaussian is no share of 60 training examples"),
        (place("curve", (0, 0), 1e9), "'curve' goes back in time"),
        (
            scale("right_mean.gaussian", 0.5),
            "'right_mean.gaussian' has shares that 20 models cannot",
        ),
        # Numbers that do not belong together
        (scale("nearest.generated", 0.5), "generated.similarity.nearest.value is"),
        (put("nearest.gaussian", np.zeros(20, np.float16)), "gaussian.similarity.nearest is"),
        (scale("nearest.original", 0.5), "nearest.original is not the largest IoU"),
        (scale("nearest.copy", 0.99), "copies that are like no original"),
        (
            both(place("iou", (0, 20), 0.123), place("iou", (20, 0), 0.123)),
            "entries of iou cannot be, such as 0.123",
        ),
        (place("nearest.average", 0, 0.123), "nearest.average cannot be with any original"),
        (
            put("right_selected.generated", np.full(5, 255, np.uint8)),
            "right_selected.generated is ",
        ),
        (put("right_best.copy", np.zeros(5, np.uint8)), "right_best.copy is right 0 times"),
        (put("right_mean.gaussian", np.zeros(40, np.uint8)), "populations.gaussian.mean is"),
        (put("right_mean.gaussian", np.zeros(40, np.uint8)), "contradict each other"),
        (
            put("train.finetune", np.linspace(0, 1, 10, dtype=np.float32)),
            "train.finetune is no share",
        ),
        (put("train.copy", np.zeros(40, np.float32)), "that no original with the same score has"),
        (
            lambda arrays: arrays["curve"][-1:].__setitem__((0, 1), 0.0),
            "its values are not the last scores",
        ),
    ],
)
def test_a_side_file_that_does_not_follow_is_named(path, change, problem):
    with_arrays(path, change)
    told(path, problem)


def test_outcomes_that_say_something_else_than_the_matrix(path):
    """As many units right, but others."""
    arrays = side.read(path.with_suffix(".npz"))
    original = Case(Record.read(path), arrays).right("original", "worst")
    shifted = np.packbits(np.roll(original, 7))
    assert not np.array_equal(shifted, arrays["right_worst.original"])
    with_arrays(path, put("right_worst.original", shifted))
    told(path, "by the outcomes of the two models")


def test_a_selected_model_that_is_not_the_best_on_the_training_split(path):
    data = json.loads(path.read_text())["populations"]["gaussian"]
    train = side.read(path.with_suffix(".npz"))["train.gaussian"]
    chosen = {v for v, t in zip(data["values"], train, strict=True) if t == train.max()}
    other = next(value for value in data["values"] if value not in chosen)
    changed(path, {"populations.gaussian.selected": other})
    told(path, "(of the models with the best training score)")


@pytest.fixture
def shipped(tmp_path):
    """Copies a shipped record and its side file, by the beginning of its id."""

    def copied(name):
        (original,) = (ROOT / "leaderboard" / "results").glob(f"*/{name}*.json")
        copy = tmp_path / original.parent.name / original.name
        copy.parent.mkdir()
        for suffix in (".json", ".npz"):
            copy.with_suffix(suffix).write_bytes(original.with_suffix(suffix).read_bytes())
        return copy

    return copied


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        ("10fa763", {"command": "rm -rf /"}, "is no command of 'python -m bench run'"),
        ("10fa763", {"command": lambda v: f"{v} --fast"}, "is no option of "),
        ("10fa763", {"command": lambda v: f"{v} --task mnist"}, "command's --task is mnist, expected "),
        ("10fa763", {"generator.uses_scores": True}, "uses_scores is not what uses says"),
        ("10fa763", {"scores.noise.0.amplitude": 0.0031}, "has 'noise 0.003', which is no population"),
        ("10fa763", {"scores.noise": []}, "has 'noise 0.003', which is no population"),
        ("10fa763", {"novelty.toward_mean": 1.0}, "judge.origin.toward_mean is 1, expected 0 to 0.7"),
        ("10fa763", {"novelty.toward_mean": 0.6}, "judge.word is copies, expected averages"),
        ("10fa763", {"novelty.sees_training": lambda v: not v}, "(by the rule on the fine-tuned originals)"),
        ("10fa763", {"novelty.nearest_l2_ratio": None}, "judge.origin.nearest_l2_ratio is null"),
        ("10fa763", {"novelty.nearest_l2_ratio_aligned": 5.0}, "aligned is 5, expected null"),
        ("10fa763", {"similarity.controls.gaussian.original": 0.7}, "(by what they get wrong)"),
        ("10fa763", {"novelty.advantage_over_noise.low": 0.0}, "advantages.noise.mean.low is 0, expect"),
        ("2f502f2", {"novelty.nearest_l2_ratio_aligned": None}, "aligned is null, expected a distance"),
        ("2f502f2", {"tests.best_original.wins": lambda v: v + 500}, "wins - losses is"),
        ("899adf8", {"novelty.toward_mean": 0.5}, "(of the average itself)"),
        ("899adf8", {"scores.generated.values.0": 0.5}, "not a valid record"),
        ("5026c34", {"novelty.nearest_l2_ratio": 1.0}, "expected null (of a single original)"),
        ("862ba24", {"timing.sgd_s": 2900.0}, "when the curve reaches the target score"),
        ("862ba24", {"zoo.base_score": 0.5}, "zoo.base_score is 0.5, expected 0.494 (of the curve)"),
        ("862ba24", {"timing.sgd_s": 2e-9}, "when the curve reaches the target score"),
        ("085815e", {"task.metric": "FID"}, "task.metric.name is FID, expected fd-convnet3"),
        ("085815e", {"task.higher_is_better": True}, "higher_is_better is True, expected False"),
        ("085815e", {"tests": {n: {"wins": 0, "losses": 0, "p": 1.0} for n in
                               ("best_original", "average")}}, "tests is there, expected null"),
        ("085815e", {"scores.copy.further.precision.mean": 1.2}, "precision.mean is 1.2, expected 0 to"),
        ("085815e", {"similarity.controls.copy.within": 0.9}, "copy.similarity.within is 0.9, expected at"),
        ("085815e", {"similarity.controls.copy.original": 0.9}, "(by the nearest originals)"),
        ("088504", {"scores.generated.further.AP50.selected": 0.1}, "(of one model)"),
        ("088504", {"scores.copy.further.AP50.mean": 0.1}, "expected at most 0.1 (its AP50)"),
        ("2da6fb", {"scores.copy.further.pixel accuracy.mean": 0.5}, "(of the units)"),
        ("2da6fb", {"tests": {n: {"wins": 0, "losses": 0, "p": 1.0} for n in
                              ("best_original", "average")}}, "units are not independent"),
    ],
)  # fmt: skip
def test_what_does_not_follow_in_shipped_records_is_named(shipped, name, fields, problem):
    file = shipped(name)
    changed(file, fields)
    told(file, problem)


@pytest.mark.parametrize(
    ("name", "shift", "problem"),
    [
        ("085815e", -6.0, "fd-convnet3 is not 0 or more"),
        ("085815e", -0.4, "(by the scores of models with such training scores)"),
        ("8abb9f", 1.5, "mAP is not between 0 and 1"),
        ("8abb9f", -1.5, "mAP is not between 0 and 1"),
        ("8abb9f", 0.1, "(by the scores of models with such training scores)"),
        ("8abb9f", 0.2, "of the units right"),
        ("2da6fb", 0.5, "mean IoU is not between 0 and 1"),
    ],
)
def test_scores_that_are_all_too_good_are_named(shipped, name, shift, problem):
    """A population that is in itself what a record may hold."""

    def moved(population):
        names = ("best", "selected", "mean", "median", "worst", "low", "high")
        found = {part: population[part] + shift for part in names}
        return {**population, **found, "values": [value + shift for value in population["values"]]}

    file = shipped(name)
    changed(file, {"scores.generated": moved})
    told(file, problem)


def test_a_missing_side_file_and_one_without_a_record_are_named(path):
    path.with_suffix(".npz").rename(path.with_name("other.npz"))
    told(path, "is missing or cannot be read")
    assert path.with_name("other.npz") in check.files([path.parent])
    assert check.check(path.with_name("other.npz")) == ["a side file without its record beside it"]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"schema": NaN}', "null", "\udc80"])
def test_what_is_no_record_is_told_in_lines(path, text):
    path.write_bytes(text.encode(errors="surrogateescape"))
    problems = check.check(path)
    assert problems
    assert all("not a valid record: " in problem for problem in problems)
    assert all(problem.isprintable() for problem in problems)


def test_every_wrong_field_is_told(path):
    changed(
        path, {"zoo.d": 2**70, "created": "0001-01-01T00:00:00+12:00", "protocol.seed": -(2**70)}
    )
    problems = check.check(path)
    assert len(problems) == 3
    assert {problem.split(": ")[1] for problem in problems} == {"zoo.d", "created", "protocol.seed"}


def test_numbers_too_large_to_compute_with_are_one_line(path):
    changed(path, {"populations.copy": lambda v: {**v, **same([1.7e308] * 40)}})
    assert all("not a valid record" in problem for problem in check.check(path))
    assert check.check(path)


@pytest.mark.parametrize("kind", ["pipe", "loop", "folder", "device", "nowhere"])
@pytest.mark.parametrize("suffix", [".json", ".zip"])
def test_what_is_no_regular_file_is_one_line(tmp_path, kind, suffix):
    file = tmp_path / f"odd{suffix}"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to({"loop": file, "device": "/dev/zero", "nowhere": "/nowhere"}[kind])
    assert check.files([tmp_path]) == [file]
    (problem,) = check.check(file)
    assert problem.isprintable()


def test_a_side_file_that_is_a_pipe_is_not_waited_for(path):
    path.with_suffix(".npz").unlink()
    os.mkfifo(path.with_suffix(".npz"))
    told(path, "is no regular file")


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\u202e", "x" * 1000])
def test_a_problem_is_a_short_line_whatever_the_record_says(path, text):
    changed(path, {"task.compared.units": text[:300]})
    problems = check.check(path)
    assert problems
    assert all(problem.isprintable() and len(problem) < 600 for problem in problems)


# What is known of tasks and generators ---------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "weights"),
    [("convnet3", "released"), ("inception", "released"), ("inception", "ab" * 32)],
)
def test_distances_are_called_as_the_task_calls_them(network, weights):
    settings = {"feature_network": network, "feature_weights": weights}
    assert identity.drawn_metric(settings) == features.metric(network, weights)


def test_files_of_earlier_records_are_named_after_what_went_into_them():
    """A zoo of the first checkpoints of a larger one is found too; another seed's is not."""
    found = Record.read(min((ROOT / "leaderboard" / "results").rglob("*.json")))
    case = Case(found, {})
    assert identity.earlier(case)
    assert found.artifacts.generated.file in identity._generated(case)
    assert identity._collected(found, found.artifacts.zoo.file)
    fewer = found.model_copy(update={"zoo": found.zoo.model_copy(update={"k": 3})})
    assert identity._collected(fewer, found.artifacts.zoo.file)
    other = found.model_copy(update={"zoo": found.zoo.model_copy(update={"seed": 1})})
    assert not identity._collected(other, found.artifacts.zoo.file)


# How far a record was verified -----------------------------------------------------------------


def test_a_mark_is_of_the_record_as_it_was_and_of_this_tier(path):
    assert call("verify", path, "--device", "cpu", "--mark") == 0
    found = Record.read(path)
    assert (found.tier, found.verified.code) == ("rescored", verify.code_hash())
    assert check.check(path) == []
    marked = path.read_text()
    for fields in (
        {"tier": "regenerated"},
        {"environment.cpu": "another"},
        {"timing.peak_memory_bytes": 1},
    ):
        path.write_text(marked)
        changed(path, fields)
        told(path, "the record was changed since")
    path.write_text(marked)
    changed(path, {"tier": "claimed"})
    told(path, "verified is there, expected null (the tier is claimed)")
    path.write_text(marked)
    changed(path, {"verified": None})
    told(path, "'bench verify --mark' did not write it")


def test_tiers_from_before_there_was_a_mark_are_of_these_records_alone(tmp_path):
    shipped = sorted((ROOT / "leaderboard" / "results").rglob("*.json"))
    marked = [file for file in shipped if Record.read(file).tier != "claimed"]
    found = {(file.stem, content_hash(file.read_bytes())) for file in marked}
    assert tiers.earlier() == found
    one = marked[0]
    copy = tmp_path / one.parent.name / one.name
    copy.parent.mkdir()
    copy.with_suffix(".npz").write_bytes(one.with_suffix(".npz").read_bytes())
    copy.write_bytes(one.read_bytes())
    assert check.check(copy) == []
    changed(copy, {"timing.peak_memory_bytes": lambda v: v + 1})
    told(copy, "tier is regenerated, expected claimed")


# Zips ------------------------------------------------------------------------------------------


def test_an_export_is_all_right_and_the_same_each_time(path, tmp_path):
    first = export.export(path, tmp_path / "a.zip")
    second = export.export(path, tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
    assert check.check(first) == []
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == [export.RECORD, export.SIDE, export.WEIGHTS]
        assert archive.read(export.RECORD) == path.read_bytes()
    small = export.export(path, tmp_path / "c.zip", weights=False)
    assert check.check(small) == []
    assert small.stat().st_size < first.stat().st_size


def test_an_export_of_what_is_missing_or_another_file_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "empty"))
    with pytest.raises(BadRequest, match="--no-weights"):
        export.export(path, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    path.with_suffix(".npz").write_bytes(b"x")
    with pytest.raises(BadRequest, match="not the file that the record names"):
        export.export(path, tmp_path / "a.zip", weights=False)


def packed(tmp_path, **members):
    file = tmp_path / "sent.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return file


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a\x1b[31m", "record.json/x"])
def test_other_members_are_refused_unread(path, tmp_path, name):
    file = tmp_path / "sent.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("record.json", path.read_bytes())
        archive.writestr(name, "x")
    (problem,) = check.check(file)
    assert "alone" in problem
    assert problem.isprintable()


def test_a_member_that_is_too_large_is_refused_unread(tmp_path):
    (problem,) = check.check(packed(tmp_path, record__json=b" " * (record.LIMIT + 1)))
    assert "record.json has 20,000,001 bytes, expected at most 20,000,000" in problem


def test_a_member_whose_header_hides_its_size_is_not_unpacked_beyond_it(tmp_path):
    """The list of members says 100 bytes, the stream has a hundred million."""
    packer = zlib.compressobj(wbits=-15)
    stream = packer.compress(b" " * 100_000_000) + packer.flush()
    file = packed(tmp_path, record__json=b" " * 100)
    with zipfile.ZipFile(file) as archive:
        size = archive.getinfo("record.json").compress_size
    data = bytearray(file.read_bytes())
    start = 30 + len("record.json")
    listed = data.index(b"PK\x01\x02")
    for at in (18, listed + 20):
        data[at : at + 4] = len(stream).to_bytes(4, "little")
    end = data.index(b"PK\x05\x06")
    data[end + 16 : end + 20] = (listed + len(stream) - size).to_bytes(4, "little")
    file.write_bytes(data[:start] + stream + data[listed:])
    (problem,) = check.check(file)
    assert "record.json" in problem


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_may_unpack_to_anything_at_once_are_refused(path, tmp_path, method):
    file = tmp_path / "sent.zip"
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("record.json", path.read_bytes())
    (problem,) = check.check(file)
    assert "expected 0 or 8" in problem


def test_a_zip_is_checked_as_its_record_is(path, tmp_path):
    changed(path, {"judge.word": "novel", "judge.collapsed": lambda v: not v})
    side_file = path.with_suffix(".npz").read_bytes()
    problems = check.check(packed(tmp_path, record__json=path.read_bytes(), side__npz=side_file))
    assert problems == check.check(path)
    assert len(problems) >= 2
    (missing, *_) = check.check(packed(tmp_path, record__json=path.read_bytes()))
    assert "side.npz is missing" in missing


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_missing_or_there_twice_are_named(path, tmp_path):
    assert check.check(packed(tmp_path, side__npz=b"x")) == ["it has no record.json"]
    file = tmp_path / "twice.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("record.json", path.read_bytes())
        archive.writestr("record.json", path.read_bytes())
    assert check.check(file) == ["it has a file twice"]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"x" * 100])
def test_what_is_no_zip_is_named(tmp_path, data):
    file = tmp_path / "a.zip"
    file.write_bytes(data)
    assert "not a readable zip" in check.check(file)[0]


def weights_of(path, data, tmp_path):
    """A zip whose record names these weights."""
    changed(path, {"artifacts.generated.sha256": hashlib.sha256(data).hexdigest()})
    beside = path.with_suffix(".npz").read_bytes()
    members = {"record__json": path.read_bytes(), "side__npz": beside}
    return packed(tmp_path, **members, generated__safetensors=data)


def tensors(tmp_path, **named):
    save_file(named, tmp_path / "w.safetensors")
    return (tmp_path / "w.safetensors").read_bytes()


def headed(header, body=b""):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(text).to_bytes(8, "little") + text + body


def test_weights_must_be_the_records_finite_matrix(path, tmp_path):
    good = np.ones((40, Record.read(path).zoo.d), np.float32)
    bad = good.copy()
    bad[-1, -1] = np.inf
    views = {"latent.original": np.full((12, 3), np.nan, np.float32)}
    assert check.check(weights_of(path, tensors(tmp_path, vectors=good, **views), tmp_path)) == []
    f8 = {"dtype": "F8_E4M3", "shape": list(good.shape), "data_offsets": [0, good.size]}
    short = {"dtype": "F32", "shape": list(good.shape), "data_offsets": [0, good.nbytes]}
    for data, problem in (
        (tensors(tmp_path, vectors=good[:2]), "expected (40, "),
        (tensors(tmp_path, vectors=good.astype(np.float64)), "in F64, expected"),
        (tensors(tmp_path, vectors=good * np.nan), "not finite"),
        (tensors(tmp_path, vectors=bad, **views), "not finite"),
        (tensors(tmp_path, other=good), "not readable"),
        (headed({"vectors": f8}, b"x" * good.size), "in F8_E4M3, expected"),
        (headed({"vectors": short}, b"x" * 10), "it is shorter than its header says"),
        (headed(b"[" * 100_000), "not readable"),
        (headed({"vectors": {"data_offsets": [5, 2]}}), "not readable"),
        (b"x" * 7, "it ends in its header"),
        (b"\xff" * 100, "a header of 18,446,744,073,709,551,615 bytes"),
    ):
        (found,) = check.check(weights_of(path, data, tmp_path))
        assert problem in found


def test_weights_that_are_not_the_named_ones_are_refused(path, tmp_path):
    file = packed(
        tmp_path,
        record__json=path.read_bytes(),
        side__npz=path.with_suffix(".npz").read_bytes(),
        generated__safetensors=b"x",
    )
    assert check.check(file) == ["generated.safetensors is not the file that the record names"]


# The commands ----------------------------------------------------------------------------------


def test_the_command_says_ok_or_what_is_wrong(path, tmp_path, capsys):
    assert call("check", path) == 0
    assert capsys.readouterr().out.splitlines() == [f"{path}: ok", "1 files, all ok"]
    changed(path, {"protocol.selection": "none", "judge.collapsed": lambda v: not v})
    assert call("check", path.parent) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3
    assert out[-1] == "1 files, 1 with problems"


def test_a_bad_request_is_exit_code_2(tmp_path, capsys):
    assert call("check", tmp_path / "nowhere") == 2
    assert "is not there" in capsys.readouterr().err
    assert call("check", tmp_path) == 2
    assert "nothing to check" in capsys.readouterr().err


def test_export_and_check_through_the_command_line(path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("export", path) == 0
    assert call("check", f"{path.stem}.zip") == 0
    assert call("export", path, "--output", "small.zip", "--no-weights") == 0
    assert call("check", "small.zip") == 0
    assert "small.zip: ok" in capsys.readouterr().out


def test_weights_that_unpack_to_far_more_than_their_zip_are_refused(path, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "SMALL", 1000)
    file = weights_of(
        path, tensors(tmp_path, vectors=np.zeros((200, 10_000), np.float32)), tmp_path
    )
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    (problem,) = check.check(file)
    assert "unpacks to more than" in problem
