"""The command ``bench study``."""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import BadRequest
from bench.options import asking, pairs
from bench.records.values import parsed
from bench.system.data import Json

if TYPE_CHECKING:
    from bench.study.drive import Execution, Summary
    from bench.study.recipe import Cell, Recipe


class Engine(StrEnum):
    """The executor of stages."""

    local = "local"
    ray = "ray"


class Format(StrEnum):
    """The format of a report."""

    text = "text"
    markdown = "markdown"
    csv = "csv"


@asking(
    "recipe list_ dry_run report format_ only fix executor ray_address store retries device data_dir results debug"
)
def study(
    options: dict[str, Json],
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a study that ships, or a recipe's file.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the studies that ship.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and do nothing.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Print our numbers beside the reference's.")
    ] = False,
    format_: Annotated[Format, typer.Option("--format", help="Of the report.")] = Format.text,
    only: Annotated[
        list[str] | None,
        typer.Option(help="name=value or name=value,value: only runs with these settings."),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(help="name=value: a setting of all runs, named as in a recipe."),
    ] = None,
    executor: Annotated[
        Engine, typer.Option(help="Processes of this machine, or a Ray cluster.")
    ] = Engine.local,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster; without one it is started here.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="URL of a store that machines share; sets BENCH_STORE.")
    ] = None,
    retries: Annotated[
        int, typer.Option(help="How often a stage is begun again after its process died.", min=0)
    ] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Run a study: every run of a recipe, on this machine or a Ray cluster; or report on one."""
    from bench.study import drive
    from bench.study import recipe as recipes

    if list_:
        _list()
        return
    if recipe is None:
        raise BadRequest("which study? Name one, or give a recipe's file; --list names them")
    if store:
        os.environ["BENCH_STORE"] = store
    chosen = recipes.read(recipe).fix({n: parsed(text) for n, text in pairs("--fix", fix)})
    cells = recipes.cells(chosen)
    wanted = {n: [parsed(t) for t in text.split(",")] for n, text in pairs("--only", only)}
    cells = recipes.only(cells, wanted) if wanted else cells
    results = options["results"]
    execution = drive.Execution(
        results, device, options.get("data_dir"), executor.value, ray_address, retries
    )
    if report:
        _report(chosen, cells, results, format_)
    elif dry_run:
        _dry_run(chosen, cells, execution)
    else:
        _summary(recipe, drive.run(chosen, cells, execution), results)


def _list() -> None:
    from bench.study import recipe as recipes

    for name in recipes.names():
        listed = recipes.read(name)
        typer.echo(
            f"{name:<10}{len(recipes.requests(recipes.cells(listed))):>5} runs  {listed.title}"
        )


def _report(chosen: "Recipe", cells: "Sequence[Cell]", results: Path, format_: Format) -> None:
    from rich.console import Console

    from bench.study import drive, show
    from bench.study import report as reports

    parts = reports.parts(chosen, cells, drive.records(results))
    if format_ is Format.text:
        console = Console()
        console.width = console.width if console.is_terminal else 200  # a file has no edge
        console.print(show.text(parts), crop=False)
    else:
        written = show.markdown(parts) if format_ is Format.markdown else show.csv_text(parts)
        typer.echo(written, nl=False)


def _dry_run(chosen: "Recipe", cells: "Sequence[Cell]", execution: "Execution") -> None:
    from rich.console import Console

    from bench.study import drive, plan

    console = Console()
    console.width = max(console.width, 100)
    console.print(plan.render(drive.plan(chosen, cells, execution)), crop=False)


def _summary(name: str, summary: "Summary", results: Path) -> None:
    """Print a study's summary; exit with code 1 if a stage failed."""
    stages = ", ".join(f"{count} {state}" for state, count in summary.stages.items())
    typer.echo(
        f"{summary.now} records written to {results}, {summary.before} were there before"
        + (f"; stages: {stages}" if stages else "")
    )
    for node, error, log in summary.failures:
        typer.echo(f"failed: {node.label}: {error}\n  log: {log}", err=True)
    if summary.failures:
        raise typer.Exit(1)
    typer.echo(f"report: python -m bench study {name} --report --results {results}")
