"""The gate: ratios of a run against those of the baseline."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

BASELINE = Path(__file__).with_name("baseline.json")
TOLERATED = 0.8  # of the baseline's ratio


def ratios(report: Path) -> dict[str, float]:
    """Name and ratio of every benchmark in a JSON report of pytest-benchmark; NaN where that is no number."""
    found = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    return {
        entry["name"].removeprefix("test_"): _number(entry["extra_info"]["ratio"])
        for entry in found
        if "ratio" in entry["extra_info"]
    }


def baseline(form: str) -> dict[str, float]:
    """The baseline's ratios of a form, such as "short avx512"; empty where there is none, NaN for what is no number."""
    if not BASELINE.exists():
        return {}
    kept = json.loads(BASELINE.read_text(encoding="utf-8")).get(form, {})
    return {name: _number(ratio) for name, ratio in kept.items()}


def _number(value: object) -> float:
    return float(value) if type(value) in (int, float) else math.nan


def write_baseline(form: str, measured: Mapping[str, float]) -> None:
    """Replace the ratios of one form on one kind of processor."""
    kept = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    kept[form] = {name: round(ratio, 2) for name, ratio in sorted(measured.items())}
    BASELINE.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def unusable(source: str, ratios: Mapping[str, float]) -> list[str]:
    """One line for each ratio that is not a finite number above 0: a comparison with NaN is never true."""
    return [
        f"{name}: ratio {ratio} in {source}, expected a finite number above 0"
        for name, ratio in sorted(ratios.items())
        if not _usable(ratio)
    ]


def _usable(ratio: float) -> bool:
    return 0 < ratio < math.inf


def complaints(measured: Mapping[str, float], expected: Mapping[str, float]) -> list[str]:
    """One line for each benchmark that is too slow, missing from the run or the baseline, or without a usable ratio."""
    lines = [*unusable("this run", measured), *unusable("the baseline", expected)]
    for name in sorted({*measured, *expected}):
        if name not in measured:
            lines.append(f"{name}: in the baseline, not in this run")
        elif name not in expected:
            lines.append(
                f"{name}: in this run, not in the baseline (python -m tests.benchmarks update)"
            )
        elif not (_usable(measured[name]) and _usable(expected[name])):
            continue  # said above
        elif measured[name] < TOLERATED * expected[name]:
            share = measured[name] / expected[name]
            lines.append(
                f"{name}: ratio {measured[name]:.1f} is {share:.0%} of the baseline's "
                f"{expected[name]:.1f}, expected at least {TOLERATED:.0%}"
            )
    return lines
