"""The gate: ratios of a run against those of the baseline."""

import json
from collections.abc import Mapping
from pathlib import Path

BASELINE = Path(__file__).with_name("baseline.json")
TOLERATED = 0.8  # of the baseline's ratio


def ratios(report: Path) -> dict[str, float]:
    """Name and ratio of every benchmark in a JSON report of pytest-benchmark."""
    found = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    return {
        entry["name"].removeprefix("test_"): float(entry["extra_info"]["ratio"])
        for entry in found
        if "ratio" in entry["extra_info"]
    }


def baseline(form: str) -> dict[str, float]:
    """The baseline's ratios of a form, "full" or "short"; empty where there is none."""
    if not BASELINE.exists():
        return {}
    kept: dict[str, dict[str, float]] = json.loads(BASELINE.read_text(encoding="utf-8"))
    return kept.get(form, {})


def write_baseline(form: str, measured: Mapping[str, float]) -> None:
    """Replace the ratios of one form."""
    kept = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    kept[form] = {name: round(ratio, 2) for name, ratio in sorted(measured.items())}
    BASELINE.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def complaints(measured: Mapping[str, float], expected: Mapping[str, float]) -> list[str]:
    """One line for each benchmark that is too slow, missing from the run, or missing from the baseline."""
    lines = []
    for name in sorted({*measured, *expected}):
        if name not in measured:
            lines.append(f"{name}: in the baseline, not in this run")
        elif name not in expected:
            lines.append(
                f"{name}: in this run, not in the baseline (python -m tests.benchmarks update)"
            )
        elif measured[name] < TOLERATED * expected[name]:
            share = measured[name] / expected[name]
            lines.append(
                f"{name}: ratio {measured[name]:.1f} is {share:.0%} of the baseline's "
                f"{expected[name]:.1f}, expected at least {TOLERATED:.0%}"
            )
    return lines
