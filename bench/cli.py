"""The command line: every command parses, calls one function and prints. torch is imported only where it is needed."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from bench.errors import BadRequest, BenchError, line, unexpected
from bench.options import asking
from bench.records.request import Request
from bench.study.command import study
from bench.system.data import Json


class _Commands(TyperGroup):
    """The commands; an ``EOFError`` in one is an error like any other, where typer would say "Aborted"."""

    def invoke(self, ctx: Any) -> object:
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise BenchError(unexpected(error)) from error


app = typer.Typer(
    name="bench",
    cls=_Commands,
    help="The yardstick for generated neural networks: collect checkpoints, fit a generator, sample models, "
    "score them beside every control, and write one honest record.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
zoo_app = typer.Typer(help="Zoos made elsewhere.", no_args_is_help=True)
app.add_typer(zoo_app, name="zoo")
app.command(epilog="Example: python -m bench study table3 --data-dir data --results results")(study)

THEME = {  # of the leaderboard: quiet, one accent; light and dark follow the reader's system
    "light.primaryColor": "#2563eb",
    "light.backgroundColor": "#ffffff",
    "light.secondaryBackgroundColor": "#f5f6f8",
    "light.textColor": "#1f2430",
    "dark.primaryColor": "#6ea8fe",
    "dark.backgroundColor": "#14171c",
    "dark.secondaryBackgroundColor": "#1d2128",
    "dark.textColor": "#e4e7ec",
    "baseRadius": "6px",
    "baseFontSize": "15",
}

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command(
    epilog="Example: python -m bench run --task cifar100 --arch resnet18 --generator pdiff --seed 1"
)
@asking(
    "task generator arch layers track k samples held_out seed zoo_seed zoo collect preset device data_dir align "
    "min_score pretrained limit fid_images settings results as_json profile force debug"
)
def run(
    options: dict[str, Json],
    k: Annotated[
        str | None,
        typer.Option(
            "--k",
            help="Checkpoints in the zoo; 1,10,50 makes a record for each. "
            "Default: the task's own, 200 for most.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record as JSON on standard output.")
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Print where the time went and keep traces in <results>/profile."
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Collect checkpoints, fit a generator, sample, score beside every control, write a record."""
    from bench.records import report
    from bench.runs import pipeline

    sizes = _numbers("--k", k) if k else []
    request = Request.named(options | ({"k": sizes[0]} if sizes else {}))
    for record, path in pipeline.nested(request, sizes or [request.k], profiled=profile):
        if as_json:
            typer.echo(record.to_json(), nl=False)
        else:
            report.show(record, str(path))


@app.command(epilog="Example: python -m bench collect --task digits --k 50 --output digits.zoo")
@asking(
    "task output arch layers track k held_out zoo_seed preset device data_dir pretrained limit fid_images settings "
    "official force debug"
)
def collect(
    options: dict[str, Json],
    output: Annotated[Path, typer.Option(help="File to write the zoo to.")],
    official: Annotated[
        bool,
        typer.Option(help="Train the reference too: both become files that a task comes with."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Collect a zoo alone: train K checkpoints and write them to one file."""
    from bench.runs import official as officially
    from bench.runs import pipeline

    run = pipeline.Run(Request.named({**options, "generator": "copy", "collect": True}))
    zoo, _ = run.zoo()
    if official:
        officially.write(zoo, run.reference(zoo), output)
    else:
        zoo.save(output)
    mean = sum(zoo.scores) / len(zoo.scores)
    typer.echo(
        f"{output}: {len(zoo)} checkpoints of {zoo.layout.dim:,} parameters, mean score {mean:.4f}, "
        f"collected in {zoo.collect_s:.1f} s, hash {zoo.hash[:16]}"
    )


@app.command("list", epilog="Example: python -m bench list")
def list_(debug: Debug = False) -> None:
    """List tasks, data sets, architectures and generators with their hyperparameters."""
    from rich.console import Console

    from bench import plugins
    from bench.contract import registry

    console = Console()
    console.print("[bold]tasks[/]")
    for name, variant in plugins.tasks().items():
        console.print(f"  {name:<25}{variant.about}", markup=False)
    console.print("\n[bold]data sets[/] (for --set task.dataset)")
    for name, data_set in registry.data_sets().items():
        console.print(f"  {name:<25}{data_set.summary}", markup=False)
    console.print("\n[bold]architectures[/] (for --arch)")
    for name, architecture in registry.architectures().items():
        console.print(f"  {name:<25}{architecture.about}", markup=False)
    console.print("\n[bold]generators[/] (hyperparameters with their defaults, for --set)")
    for name, plugin in plugins.generators().items():
        console.print(f"  {name:<25}{plugin.about}", markup=False)
        if plugin.fields:
            fields = ", ".join(f"{field}={value}" for field, value in plugin.fields.items())
            console.print(f"  {'':<25}{fields}", markup=False, style="dim")
    groups = (
        plugins.tasks(), registry.data_sets(), registry.architectures(), plugins.generators()
    )  # fmt: skip
    for warning in (one for group in groups for one in group.broken):
        typer.echo(f"warning: {line(warning)}", err=True)


@app.command(epilog="Example: python -m bench show results/0123456789abcdef/fedcba9876543210.json")
def show(
    record: Annotated[Path, typer.Argument(help="File of a record.")],
    svg: Annotated[
        Path | None, typer.Option(help="Also write the report as a picture to this file.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Show a record as a table."""
    from bench.records import report
    from bench.records.record import Record
    from bench.system.store import write_text

    read = Record.read(record)
    report.show(read, str(record))
    if svg:
        write_text(svg, report.picture(read, str(record)))


@app.command(
    epilog="Example: python -m bench verify results/0123456789abcdef/fedcba9876543210.json --from-seed"
)
@asking("record from_seed reference mark foreign zoo device data_dir debug")
def verify(
    options: dict[str, Json],
    record: Annotated[Path, typer.Argument(help="File of a record.")],
    from_seed: Annotated[
        bool,
        typer.Option("--from-seed", help="Also fit and sample again, and compare the weights."),
    ] = False,
    reference: Annotated[
        bool,
        typer.Option(
            "--reference", help="Also score a few models with torchmetrics and pycocotools."
        ),
    ] = False,
    mark: Annotated[
        bool, typer.Option("--mark", help="Where all agrees, write the tier into the record.")
    ] = False,
    foreign: Annotated[
        bool,
        typer.Option(
            "--foreign", help="Import and run the code of my_package.module:Class that it names."
        ),
    ] = False,
    zoo: Annotated[
        Path | None, typer.Option(help="File of the zoo, where it is not in the store.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Compute a record's numbers again from the stored weights, and say field by field what agrees."""
    from bench.records.record import Record
    from bench.runs import checked, prepared
    from bench.runs import verify as again
    from bench.system.store import write_text

    read = Record.read(record)
    checks = again.verify(
        read,
        side_file=record.with_suffix(".npz"),
        zoo=zoo,
        device=prepared.choose_device(options["device"]),
        data_dir=options.get("data_dir"),
        from_seed=from_seed,
        reference=reference,
        foreign=foreign,
    )
    for name, group in checked.grouped(checks).items():
        wrong = [check for check in group if check.problem]
        typer.echo(f"{line(name)}: {f'{len(wrong)} of {len(group)} differ' if wrong else 'agrees'}")
        for check in wrong:
            typer.echo(line(f"  {check.field}: {check.problem}"))
    tier = checked.tier(checks, from_seed=from_seed)
    if tier == "claimed":
        typer.echo("not verified: the record does not agree with its weights")
        raise typer.Exit(1)
    typer.echo(f"verified: {tier}")
    if mark:
        write_text(record, again.marked(record.read_bytes(), tier))


@app.command(
    epilog="Example: python -m bench export results/0123456789abcdef/fedcba9876543210.json --output mine.zip"
)
def export(
    record: Annotated[Path, typer.Argument(help="File of a record.")],
    output: Annotated[
        Path | None, typer.Option(help="Zip to write; default: <id>.zip in this folder.")
    ] = None,
    weights: Annotated[
        bool,
        typer.Option("--weights/--no-weights", help="Whether the generated weights go with it."),
    ] = True,
    debug: Debug = False,
) -> None:
    """Pack a record with its side file and generated weights into one zip, to send to somebody."""
    from bench.records import export as packing

    done = packing.export(record, output or Path(f"{record.stem}.zip"), weights=weights)
    typer.echo(f"{done}: {done.stat().st_size:,} bytes")


@app.command(epilog="Example: python -m bench check results")
def check(
    files: Annotated[
        list[Path], typer.Argument(help="Records, exported zips, or folders of them.")
    ],
    debug: Debug = False,
) -> None:
    """Check records or exported zips from others: schema, hashes, ranges and consistency of the numbers."""
    from bench.records import check as checking

    by_file = checking.check_all(checking.files(files))
    for path, problems in by_file.items():
        for problem in problems or [checking.fine(path)]:
            typer.echo(f"{line(str(path))}: {problem}")
    wrong = sum(map(bool, by_file.values()))
    typer.echo(
        f"{len(by_file)} files, {wrong} with problems" if wrong else f"{len(by_file)} files, all ok"
    )
    if wrong:
        raise typer.Exit(1)


@app.command(epilog="Example: python -m bench calibrate --task digits --trials 20")
@asking(
    "task trials k samples held_out arch layers track seed zoo_seed device data_dir settings debug"
)
def calibrate(
    options: dict[str, Json],
    trials: Annotated[int, typer.Option(help="Zoos to collect.")] = 40,
    k: Annotated[int, typer.Option("--k", help="Checkpoints in each zoo.")] = 100,
    samples: Annotated[int, typer.Option(help="Models of each planted generator.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the trials.")] = 0,
    debug: Debug = False,
) -> None:
    """Measure how often the verdict is right, on generators whose verdict is known."""
    from rich.console import Console

    from bench.runs import calibrate as known

    sizes = {"k": k, "samples": samples, "seed": seed}
    request = Request.named({**options, **sizes, "generator": "copy"})
    table = known.calibrate(request, trials)
    console = Console()
    console.width = max(console.width, 100)  # a row broken by the terminal beats figures cut short
    console.print(known.render(table))
    typer.echo(known.conclusion(table))


@zoo_app.command(
    "import", epilog="Example: python -m bench zoo import checkpoints/*.pth --output mine.zoo"
)
def import_(
    files: Annotated[
        list[Path], typer.Argument(help="State dicts (.pth or .safetensors), or folders of them.")
    ],
    output: Annotated[Path, typer.Option(help="File to write the zoo to.")],
    base: Annotated[
        Path | None, typer.Option(help="State dict of the frozen rest of the network.")
    ] = None,
    runs: Annotated[
        str | None,
        typer.Option(
            help="What tells the run of a checkpoint: file (each its own), folder, or a regular expression such as "
            "'seed([0-9]+)' on its path. Whole runs are then held out as the reference. Default: what the format tells."
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="Of folders: auto, flat (files), ray (Ray Tune), lmdb (G.pt), peft (adapters) or hf (Hugging Face).",
        ),
    ] = "auto",
    epoch: Annotated[str, typer.Option(help="Of every run: last, all or a number.")] = "all",
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only checkpoints of which this is told: 'test_acc>0.6'; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many checkpoints only.")] = None,
    norm_eps: Annotated[
        float,
        typer.Option(help="What batch normalization adds to variances, where they are folded."),
    ] = 1e-5,
    debug: Debug = False,
) -> None:
    """Make a zoo from state dicts, such as the official p-diff repository writes."""
    from bench.runs.importing import Choice, import_zoo

    zoo = import_zoo(files, base, runs, Choice(form, epoch, tuple(where or ()), limit, norm_eps))
    zoo.save(output)
    typer.echo(
        f"{output}: {len(zoo)} checkpoints of {zoo.layout.dim:,} parameters in "
        f"{len(zoo.layout.names)} tensors, {len(zoo.base)} tensors of the base"
        + (f", {len(set(zoo.runs))} runs" if zoo.runs else "")
    )


@zoo_app.command("export", epilog="Example: python -m bench zoo export mine.zoo mine --format pth")
def export_zoo(
    zoo: Annotated[Path, typer.Argument(help="File of a zoo.")],
    folder: Annotated[Path, typer.Argument(help="New or empty folder to write to.")],
    form: Annotated[str, typer.Option("--format", help="safetensors or pth.")] = "safetensors",
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Also write the K x D matrix as matrix.npy.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write every checkpoint of a zoo as a state dict that any program reads."""
    from bench.contract import Zoo
    from bench.runs.exporting import export

    whole = Zoo.load(zoo)
    export(whole, folder, form, matrix=matrix)
    typer.echo(
        f"{folder}: {len(whole)} checkpoints of {whole.layout.dim:,} parameters, hash {whole.hash[:16]}"
    )


@app.command(epilog="Example: python -m bench leaderboard --results results --port 8501")
def leaderboard(
    results: Annotated[
        list[Path] | None, typer.Option(help="Folders of records, beside the shipped ones.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the page.")] = 8501,
    static: Annotated[
        Path | None,
        typer.Option(help="Write it into this folder instead, as plain files that need no server."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Open the leaderboard in a browser, or write it as plain files."""
    folders = [str(folder.resolve()) for folder in results or []]
    if static:
        _become("leaderboard.static", str(static.resolve()), *folders)
    app_file = Path(__file__).resolve().parents[1] / "leaderboard" / "app.py"
    arguments = [str(app_file), "--server.port", str(port), "--client.toolbarMode", "viewer"]
    arguments += ["--server.address", "localhost", "--server.showEmailPrompt", "false"]
    arguments += ["--browser.gatherUsageStats", "false"]
    arguments += [f"--theme.{name}={value}" for name, value in THEME.items()]
    _become("streamlit", "run", *arguments, "--", *folders)


def _become(module: str, *words: str) -> NoReturn:
    """Run a module in place of this process, so that whoever stops the command stops the module."""
    os.execv(sys.executable, [sys.executable, "-m", module, *words])


def _numbers(option: str, text: str) -> list[int]:
    """Parse whole numbers that are separated by commas.

    Raises:
        BadRequest: a part is no whole number.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise BadRequest(f"{option} {text}: expected a number, or several with commas") from None


def main() -> None:
    """Run the command line; print an error of any kind as one line, with a traceback only under ``--debug``."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append("")  # 'python -m bench' sees the generators of this folder as well
    received: list[int] = []

    def terminate(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        known = isinstance(error, BenchError)
        text = str(error) if known else f"{unexpected(error)}: --debug shows the traceback"
        print(f"error: {line(text)}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, BenchError) else 1)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 130:  # which typer makes of Ctrl-C
            raise
        print(
            "stopped: finished stages are kept, the same command goes on from there",
            file=sys.stderr,
        )
        sys.exit(128 + received[0] if received else 130)
