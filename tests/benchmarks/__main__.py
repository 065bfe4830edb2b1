"""``python -m tests.benchmarks check`` compares with the baseline, ``update`` rewrites it; ``--short`` for CI."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer

from tests.benchmarks import gate

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Short = Annotated[
    bool, typer.Option("--short", help="Smaller sizes, with a baseline of their own.")
]
Report = Annotated[Path | None, typer.Option("--json", help="Keep pytest-benchmark's report here.")]


@app.command()
def check(short: Short = False, report: Report = None) -> None:
    """Measure, and fail where a ratio is below 80 % of the baseline's or of no use, or a benchmark is missing.

    Of a kind of processor without a baseline, only ratios of no use fail.
    """
    measured, expected = _measure(short, report), gate.baseline(_form(short))
    if not expected:
        typer.echo(f"there is no baseline '{_form(short)}': nothing is compared")
        _stop_at(gate.unusable("this run", measured))
        return
    _stop_at(gate.complaints(measured, expected))


@app.command()
def update(short: Short = False, report: Report = None) -> None:
    """Measure, and make what was measured the baseline, unless a ratio is not a finite number above 0."""
    measured = _measure(short, report)
    _stop_at(gate.unusable("this run", measured))
    gate.write_baseline(_form(short), measured)


def _stop_at(complaints: list[str]) -> None:
    for line in complaints:
        typer.echo(line, err=True)
    if complaints:
        raise typer.Exit(1)


def _form(short: bool) -> str:
    """Return the name of a baseline: the form, and the kind of processor, whose instructions the ratios depend on.

    Without AVX-512, for example, bfloat16 is slower than float32 instead of faster.
    """
    return f"{'short' if short else 'full'} {torch.backends.cpu.get_cpu_capability().lower()}"


def _measure(short: bool, report: Path | None) -> dict[str, float]:
    """Run all benchmarks; returns their ratios, and prints them beside the baseline's."""
    with tempfile.TemporaryDirectory() as folder:
        file = report or Path(folder) / "report.json"
        # Without the project's own options: checking array shapes at every call would be measured too.
        arguments = [str(Path(__file__).parent), "-o", "addopts=", "--quiet"]
        arguments += ["--benchmark-json", str(file), *(["--short"] if short else [])]
        done = subprocess.run([sys.executable, "-m", "pytest", *arguments])
        if done.returncode:
            raise typer.Exit(done.returncode)
        measured = gate.ratios(file)
    expected = gate.baseline(_form(short))
    for name, ratio in sorted(measured.items()):
        typer.echo(f"{name:<32}{ratio:10.1f}   baseline {expected.get(name, float('nan')):10.1f}")
    return measured


if __name__ == "__main__":
    app()
