"""Verification of a record: every score and similarity is computed again from the stored weights."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bench import plugins
from bench.contract.zoo import Zoo
from bench.errors import BadRequest
from bench.judge.population import Population
from bench.records import rule1, side, verdict
from bench.records.facts import IMPORTED, Artifact, Verified
from bench.records.fields import Tier
from bench.records.record import Record, content_hash
from bench.records.request import Request
from bench.runs.assemble import Files, assemble, heading
from bench.runs.checked import Check
from bench.runs.pipeline import Run
from bench.runs.reference import compare
from bench.runs.stages import Reference, Sampled, load_reference, load_sampled
from bench.system import store

TOLERANCE = 1e-9  # relative; a single differing prediction changes a score by far more
# Fields that depend on machine, time or folder, and those that describe the making of the record.
NOT_COMPARED = (
    "schema",
    "id",
    "created",
    "request",
    "environment",
    "tier",
    "verified",
    "versions",
    "generator",
    "timing.device",
)
# Numbers of the verdict that records have whatever the version of its rule.
EARLIER = ("judge.advantages.noise.beyond",)
RULED = ("word", "rule", "median_novelty", "advantages", "sees_training", "origin", "collapsed")
FIRST = ("rule", "sees_training", "origin", "collapsed")  # rule 1 alone gave them, or otherwise
# Numbers of populations that records of schema 1 lack.
SCHEMA_2 = re.compile(r"populations\.(.*\.similarity\.kappa|original\.similarity\.nearest)(\.|$)")
# Times that records have since sampling is repeated.
FROM_BASE = ("timing.base_s", "timing.marginal_s", "timing.speedup_marginal")


def verify(
    record: Record,
    *,
    side_file: Path | None = None,
    zoo: Path | None = None,
    device: str = "cpu",
    data_dir: str | None = None,
    from_seed: bool = False,
    reference: bool = False,
    foreign: bool = False,
) -> list[Check]:
    """Compute again every field of a record that the stored weights determine; return a check of each.

    Args:
        record: the record to check.
        side_file: of the record; None leaves it out.
        zoo: the zoo's file, where it is not in the store.
        device: the device to compute on; another one than the record's may give a few other predictions.
        data_dir: the folder of the task's data.
        from_seed: whether to fit and sample again as well, and compare the weights.
        reference: whether to score a few models by public implementations as well, see ``bench.runs.reference``.
        foreign: whether to import and run code that the record names as ``module:Class``.

    Raises:
        BadRequest: the weights are missing, or the record's task or generator cannot be made.
    """
    for name in (record.task.name, record.generator.name):
        if ":" in name and not foreign:
            raise BadRequest(
                f"the record names code that is not the suite's, {name}: read it, and if you trust it, verify with "
                "--foreign"
            )
    zoo_path = zoo or store.fetch(store.home() / "zoos" / record.artifacts.zoo.file)
    path = store.fetch(store.home() / "generated" / record.artifacts.generated.file)
    checks = [
        _artifact("artifacts.zoo", zoo_path, record.artifacts.zoo),
        _artifact("artifacts.generated", path, record.artifacts.generated),
    ]
    left, _ = Zoo.load(zoo_path).parted(record.protocol.held_out)
    checkpoints, sampled = left.head(record.zoo.k), load_sampled(path)
    held = None
    if record.artifacts.reference:
        file = store.fetch(store.home() / "references" / record.artifacts.reference.file)
        checks.append(_artifact("artifacts.reference", file, record.artifacts.reference))
        held = load_reference(file)
    asked = request(record, zoo_path, device, data_dir)
    run = Run(asked, protocol=record.protocol.version)
    with store.set_aside():
        if from_seed:
            checks += _regenerated(run, checkpoints, sampled, held)
        populations = run.score(checkpoints, sampled.vectors, held)
        if reference:
            models = vectors(run, checkpoints, sampled, held)
            checks += compare(record, run.task, checkpoints, models)
        if side_file and record.artifacts.side:
            checks.append(_artifact("artifacts.side", side_file, record.artifacts.side))
            arrays = run.side_arrays(checkpoints, sampled, held, populations)
            checks += _side(side.read(side_file), _of_its_time(arrays, record))
    timed = [_timed(one, record) for one in populations]
    head = heading(run, checkpoints)
    files = Files(zoo_path, sampled.path, None, None)
    again = assemble(run, head, checkpoints, sampled, timed, files)
    if record.judge.rule == rule1.RULE:
        judge = again.judge.model_copy(update={"word": rule1.of(again)})
        again = again.model_copy(update={"judge": judge})
    return checks + differences(record, again)


def vectors(
    run: Run, zoo: Zoo, sampled: Sampled, held: Reference | None
) -> dict[str, Float[Tensor, "n D"]]:
    """Return the vectors of every population by its name; controls come from the store, where scoring put them."""
    controls = {str(control): vectors for control, vectors in run.control_vectors(zoo)}
    reference = {"reference": held.vectors} if held else {}
    return {"original": zoo.vectors, "generated": sampled.vectors, **reference, **controls}


def _timed(population: Population, record: Record) -> Population:
    """Return a population, the generated one with the record's scoring times, which cannot be measured again."""
    if population.origin.role != "generated":
        return population
    times = record.timing
    return dataclasses.replace(population, select_s=times.select_s, score_s=times.score_s)


def _of_its_time(arrays: side.Arrays, record: Record) -> side.Arrays:
    """Return the arrays without those that a record has only since metrics say how they are resampled."""
    every = record.task.metric.resampled != "none"
    return {name: a for name, a in arrays.items() if every or not name.startswith("resampled")}


def _side(claimed: side.Arrays, computed: side.Arrays) -> list[Check]:
    """Compare the side file's arrays, except maps (rounding changes them) and the training curve (it holds times)."""
    checks = []
    for name in sorted({*claimed, *computed}):
        if name.startswith(("map", "latent")) or name == "curve":
            continue
        same = (
            name in claimed
            and name in computed
            and claimed[name].shape == computed[name].shape
            and np.allclose(claimed[name], computed[name], rtol=2e-3, atol=2e-3)
        )
        problem = "" if same else "the side file holds other numbers than those computed again"
        checks.append(Check(f"side file.{name}", problem))
    return checks


def request(record: Record, zoo: Path, device: str, data_dir: str | None) -> Request:
    """Return the request that repeats a record's run, on a zoo's file."""
    cls = plugins.task_class(record.task.name)
    fields = set(cls.setting_names())
    if record.zoo.track == IMPORTED:
        fields -= {*cls.collecting}  # unknown, and without effect on an imported zoo
    good = record.judge.good
    return Request(
        task=record.task.name,
        generator=record.generator.name,
        task_settings={n: value for n, value in record.task.settings.items() if n in fields},
        generator_settings=record.generator.hyperparameters,
        k=record.zoo.k,
        samples=record.protocol.samples,
        held_out=record.protocol.held_out,
        seed=record.protocol.seed,
        preset=record.protocol.preset,
        device=device,
        data_dir=data_dir,
        zoo=zoo,
        align=record.generator.aligned,
        min_score=None if good is None else good.min_score,
    )


def differences(record: Record, again: Record) -> list[Check]:
    """Compare two records of one run field by field."""
    claimed, computed = (flatten(one.model_dump(by_alias=True)) for one in (record, again))
    if computed["zoo.seed"] is None:
        computed["zoo.seed"] = record.zoo.seed  # files from before they told it
    names = [n for n in {**claimed, **computed} if _compared(n, record) and not _later(n, claimed)]
    return [Check(name, _problem(claimed.get(name), computed.get(name))) for name in names]


def _compared(name: str, record: Record) -> bool:
    if name.startswith("artifacts") or any(
        name == skipped or name.startswith(f"{skipped}.") for skipped in NOT_COMPARED
    ):
        return False
    left_out = {verdict.RULE: (), rule1.RULE: FIRST}.get(record.judge.rule or 0, RULED)
    return name in EARLIER or not any(name.startswith(f"judge.{part}") for part in left_out)


def _later(name: str, claimed: Mapping[str, Any]) -> bool:
    """Return whether a record was written before a field existed (a setting, then at its default, a number, a time).

    Likewise a record says that its metric is not resampled where it was written before any was.
    """
    if name == "task.metric.resampled":
        return claimed.get(name) == "none"
    if name.startswith("task.settings."):
        return name not in claimed
    if name.endswith(".not_finite"):
        return claimed.get(name) is None
    if name in FROM_BASE and claimed.get("timing.sample_repeats_s", ()) is None:
        return claimed.get(name) is None
    return claimed["protocol.version"] == 1 and bool(SCHEMA_2.match(name))


def _problem(claimed: Any, computed: Any) -> str:
    numbers = all(isinstance(value, int | float) for value in (claimed, computed))
    if claimed == computed or (numbers and math.isclose(claimed, computed, rel_tol=TOLERANCE)):
        return ""
    return f"the record says {claimed}, computed again it is {computed}"


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested plain data as one mapping of dotted names; an empty container is a value."""
    if not data or not isinstance(data, Mapping | list):
        return {prefix: data}
    items = data.items() if isinstance(data, Mapping) else enumerate(data)
    flat: dict[str, Any] = {}
    for name, value in items:
        flat |= flatten(value, f"{prefix}.{name}" if prefix else str(name))
    return flat


def marked(content: bytes, tier: Tier) -> str:
    """Return a record's text with its tier, the hash of the verifying code, and the hash of its content.

    The text keeps its schema; the hash of its content reveals later changes.

    Args:
        content: of the record's file.
        tier: the tier that the checks justify.
    """
    data = {**json.loads(content), "tier": tier, "verified": None}
    mark = Verified(code=code_hash(), record=content_hash(json.dumps(data)))
    return json.dumps({**data, "verified": mark.model_dump()}, indent=1, ensure_ascii=False) + "\n"


def code_hash() -> str:
    """Return the SHA-256 of the source files of ``bench``."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        name = file.relative_to(folder).as_posix()
        digest.update(f"{name} {store.file_hash(file)}\n".encode())
    return digest.hexdigest()


def _artifact(field: str, path: Path, claimed: Artifact) -> Check:
    if not path.is_file():
        raise BadRequest(
            f"{path} is not there: run the record's command again, or set BENCH_HOME to where it was run"
        )
    actual = store.file_hash(path)
    same = actual == claimed.sha256
    return Check(
        field, "" if same else f"the record says SHA-256 {claimed.sha256}, the file has {actual}"
    )


def _regenerated(run: Run, zoo: Zoo, stored: Sampled, held: Reference | None) -> list[Check]:
    """Fit and sample again, and train the reference again; check that weights equal the stored ones bit for bit."""
    weights = run.generate(zoo, timed=False).vectors
    problem = "fitted and sampled again, they are others than the stored ones"
    checks = [Check("generated weights", "" if torch.equal(weights, stored.vectors) else problem)]
    again = run.reference(zoo)
    if again is None and held is None:
        return checks
    same = again is not None and held is not None and torch.equal(again.vectors, held.vectors)
    problem = "trained again, they are others than the stored ones"
    return [*checks, Check("reference weights", "" if same else problem)]
