"""A record as a person reads it: tables and sentences that follow from its numbers."""

import io
import re

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.records.record import Interval, Population, Record, likeness
from bench.records.scale import Scale

WIDTH = 96  # columns that the widest table needs


def render(record: Record, path: str) -> RenderableType:
    """The whole report.

    Args:
        record: what to show.
        path: where it lies.
    """
    return Group(
        _title(record),
        _scores(record),
        *_further(record),
        _similarity(record),
        _timing(record),
        *(Text(line) for line in sentences(record)),
        Text(f"\nrecord       {path}", style="bold", overflow="fold"),
        Text(f"leaderboard  python -m bench leaderboard --results {path.rsplit('/', 2)[0] or '.'}"),
    )


def show(record: Record, path: str) -> None:
    """Print the report on standard output."""
    console = Console()
    console.width = max(
        console.width, WIDTH
    )  # a row broken by the terminal beats figures cut short
    console.print(render(record, path))


def picture(record: Record, path: str) -> str:
    """The report as an SVG picture that needs nothing from the network."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(render(record, path))
    svg = console.export_svg(title=f"python -m bench show {path}")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def _title(record: Record) -> Text:
    task, zoo, protocol = record.task, record.zoo, record.protocol
    return Text(
        f"{record.generator.name} on {task.name}: {task.arch}, {task.layers} ({zoo.d:,} parameters), "
        f"{zoo.k} checkpoints ({zoo.track}), {protocol.samples} samples, seed {protocol.seed}, "
        f"preset {protocol.preset}\n{task.metric} on {protocol.val_size:,} validation examples; "
        f"selected on {protocol.train_size:,} training examples",
        style="bold",
    )


def _scores(record: Record) -> Table:
    """One row a population, the generator last."""
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column("population", no_wrap=True)
    for column in ("n", "best", "selected", "mean", "±", "median", "worst", "alike", "nearest"):
        table.add_column(column, justify="right", no_wrap=True)
    scores, similarity = record.scores, record.similarity
    own = similarity.original_original
    table.add_row(
        "original", *_numbers(record, scores.original), f"{own.value:.3f}" if own else "-", "-"
    )
    for name, control in scores.controls().items():
        alike = similarity.controls[name]
        pair = (f"{alike.original:.3f}", f"{alike.original_max:.3f}")
        table.add_row(name, *_numbers(record, control), *pair)
    pair = (
        f"{similarity.original_generated.value:.3f}",
        f"{similarity.original_generated_max.value:.3f}",
    )
    name = escape(record.generator.name)
    table.add_row(name, *_numbers(record, scores.generated), *pair, style="bold green")
    table.caption = (
        "±: half the width of the mean's 95 % interval. alike, nearest: "
        f"{likeness(record.task.kind)}\nwith the originals, on average and with the nearest one."
    )
    table.caption_justify = "left"
    return table


def _numbers(record: Record, population: Population) -> list[str]:
    number = Scale.of(record).text
    middle = [population.best, population.selected, population.mean]
    interval = number((population.high - population.low) / 2)
    last = [number(value) for value in (population.median, population.worst)]
    return [str(len(population.values)), *map(number, middle), interval, *last]


def _further(record: Record) -> list[Table]:
    """Other metrics of the originals and the generator's models, where there are some."""
    scores = record.scores
    if not scores.generated.further:
        return []
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column("\nalso on validation")
    pair = (("original", scores.original), (escape(record.generator.name), scores.generated))
    for name, _ in pair:
        for column in ("selected", "mean"):
            table.add_column(f"{name}\n{column}", justify="right")
    for metric in scores.generated.further:
        found = [population.further[metric] for _, population in pair]
        cells = [f"{value:.4g}" for one in found for value in (one.selected, one.mean)]
        table.add_row(escape(metric), *cells)
    return [table]


def _similarity(record: Record) -> Table:
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column(f"\nsimilarity ({likeness(record.task.kind)})")
    table.add_column("\nmean", justify="right")
    table.add_column("\n95 %", justify="right")
    similarity = record.similarity
    for name, value in (
        ("original - original", similarity.original_original),
        ("generated - generated", similarity.generated_generated),
        ("original - generated", similarity.original_generated),
        ("original - generated, nearest", similarity.original_generated_max),
    ):
        table.add_row(name, *_interval(value))
    return table


def _interval(value: Interval | None) -> tuple[str, str]:
    if value is None:
        return "-", "-"
    return f"{value.value:.3f}", f"{value.low:.3f} to {value.high:.3f}"


def _timing(record: Record) -> Table:
    table = Table(header_style="bold", pad_edge=False, box=None)
    timing = record.timing
    cells = {
        "collect": timing.collect_s,
        "fit": timing.fit_s,
        "sample": timing.sample_s,
        "a model": timing.sample_per_model_s,
        "select": timing.select_s,
        "score": timing.score_s,
        "SGD to target": timing.sgd_s,
    }
    table.add_column(f"\nseconds on {escape(timing.device)}")
    for name in cells:
        table.add_column("\n" + name, justify="right")
    table.add_row("", *("-" if value is None else f"{value:.3g}" for value in cells.values()))
    return table


VERDICTS = {
    "broken": "most of what the originals can do is lost, or every control is better at equal novelty",
    "copies": "not shown to be better than every control at equal novelty; nearer to single originals than to their "
    "mean, and wrong like copies with or without noise",
    "averages": "not shown to be better than every control at equal novelty, and not like copies",
    "novel": "at equal novelty better than noise-added originals, interpolations and gaussian draws, or out of their "
    "reach",
}


def _verdict(record: Record) -> list[str]:
    """The verdict and, where the rule could not have seen better, that it could not."""
    novelty = record.novelty
    if novelty.verdict is None:
        return []
    lines = [f"verdict: {novelty.verdict}, {VERDICTS[novelty.verdict]}"]
    if novelty.sees_training is False and novelty.verdict in ("copies", "averages"):
        lines.append(
            "the rule does not call fine-tuned originals novel either: on this zoo it cannot tell trained models "
            "from the controls"
        )
    return lines


def _not_finite(record: Record) -> list[str]:
    """How many models of which populations put out something that is not finite, where some did."""
    scores = record.scores
    populations = {"original": scores.original, **scores.controls()}
    populations[record.generator.name] = scores.generated
    counts = [
        f"{found.not_finite} of {len(found.values)} {name}"
        for name, found in populations.items()
        if found.not_finite
    ]
    if not counts:
        return []
    return [f"models with outputs that are not finite, which count as wrong: {', '.join(counts)}"]


def factor(value: float) -> str:
    """A factor with three digits, and no exponent.

    >>> factor(10123.4), factor(0.0212)
    ('10,123', '0.0212')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def sentences(record: Record) -> list[str]:
    """What the numbers say, in words; every sentence follows from the record."""
    lines = ["", *_verdict(record), *_not_finite(record)]
    scale = Scale.of(record)
    points = scale.factor
    similarity, novelty, timing = record.similarity, record.novelty, record.timing
    alike, usual = similarity.generated_generated, similarity.original_original
    if novelty.collapsed is not None and alike and usual:
        what, than = ("collapsed", "more") if novelty.collapsed else ("not collapsed", "no more")
        lines.append(
            f"{what}: generated models are {than} alike than the originals "
            f"({alike.value:.3f} against {usual.value:.3f})"
        )
    if novelty.advantage_over_noise is not None:
        value = novelty.advantage_over_noise
        unit = "points" if scale.percent else record.task.metric
        lines.append(
            f"against noise-added originals that are as novel: {points * value.value:+.2f} {unit} "
            f"(95 %: {points * value.low:+.2f} to {points * value.high:+.2f})"
        )
    if novelty.beyond_noise > 0:
        lines.append(
            f"more novel than any noise-added original, and not compared with them: "
            f"{100 * novelty.beyond_noise:.0f} % of the models"
        )
    if timing.speedup is not None:
        score = f"{points * timing.target_score:.4g}"
        line = (
            f"speedup over SGD to a score of {score}: {factor(timing.speedup)}x for sampling alone"
        )
        if timing.speedup_amortised is not None:
            line += (
                f", {factor(timing.speedup_amortised)}x when collecting, fitting and selecting count "
                f"({record.protocol.samples} models)"
            )
        if timing.break_even_models is not None:
            line += f"; pays off from {timing.break_even_models:,} models"
        lines.append(line)
    elif timing.sgd_s is None:
        lines.append("no speedup: there is no time of SGD to the same score in this zoo")
    if record.task.kind == "image generation":
        lines.append(
            f"{record.task.metric} of {record.protocol.val_size:,} images is too large, as is any distance of few "
            "images: compare it with others of as many images, or take the unbiased one"
        )
    return lines
