"""The report on a record for people: tables, and sentences that follow from its numbers."""

import io
import re

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from bench.errors import printable
from bench.records import rule1, speed, verdict
from bench.records.facts import IMPORTED
from bench.records.fields import Interval
from bench.records.judged import KINDS, Composition, Judgement
from bench.records.population import Likeness, Population
from bench.records.record import Record
from bench.records.scale import Scale

WIDTH = 96  # characters of the widest table


def render(record: Record, path: str) -> RenderableType:
    """Return the whole report.

    Args:
        record: the record to show.
        path: path of its file, as the report prints it.
    """
    whole = Group(
        _title(record),
        _scores(record),
        *_further(record),
        *_against_reference(record),
        _similarity(record),
        _timing(record),
        *(Text(line) for line in sentences(record)),
        Text(f"\nrecord       {path}", style="bold", overflow="fold"),
        Text(f"leaderboard  python -m bench leaderboard --results {path.rsplit('/', 2)[0] or '.'}"),
    )
    return _Printable(whole)


class _Printable:
    """What another renderable prints, with control characters of a record's texts escaped, so that none acts."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            if segment.control:
                yield segment
            else:
                text = "\n".join(map(printable, segment.text.split("\n")))
                yield Segment(text, segment.style)


def show(record: Record, path: str) -> None:
    """Print the report on standard output."""
    console = Console()
    console.width = max(
        console.width, WIDTH
    )  # a row broken by the terminal beats figures cut short
    console.print(render(record, path))


def picture(record: Record, path: str) -> str:
    """Return the report as an SVG picture that loads nothing from the network."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(render(record, path))
    svg = console.export_svg(title=f"python -m bench show {path}")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def _title(record: Record) -> Text:
    task, zoo, protocol = record.task, record.zoo, record.protocol
    return Text(
        f"{record.generator.name} on {task.name}: {task.arch}, {task.layers} ({zoo.d:,} parameters), "
        f"{zoo.k} checkpoints ({zoo.track}), {protocol.samples} samples, seed {protocol.seed}, "
        f"preset {protocol.preset}\n{task.metric.name} on {protocol.val_size:,} validation examples; "
        f"selected on {protocol.train_size:,} training examples",
        style="bold",
    )


def _scores(record: Record) -> Table:
    """Return the table of scores, one row a population, the generator last."""
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column("population", no_wrap=True)
    for column in ("n", "best", "selected", "mean", "±", "median", "worst", "alike", "nearest"):
        table.add_column(column, justify="right", no_wrap=True)
    own = record.original.similarity
    alike = (_similarity_text(own.within), _similarity_text(own.nearest))
    table.add_row("original", *_numbers(record, record.original), *alike)
    others = {
        n: one for n, one in record.populations.items() if one.role in ("reference", "control")
    }
    for name, one in others.items():
        table.add_row(escape(name), *_numbers(record, one), *_similarity_cells(one))
    made, name = record.generated, escape(record.generator.name)
    table.add_row(name, *_numbers(record, made), *_similarity_cells(made), style="bold green")
    table.caption = (
        "±: half the width of the mean's 95 % interval. alike, nearest: "
        f"{record.task.compared.likeness}\nwith the originals, on average and with the nearest one\n"
        "(of an original, with the nearest other one)."
    )
    table.caption_justify = "left"
    return table


def _similarity_cells(population: Population) -> tuple[str, str]:
    """Return a population's similarity to the originals, and to the nearest original, as text."""
    return _similarity_text(population.similarity.originals), _similarity_text(
        population.similarity.nearest
    )


def _similarity_text(likeness: Likeness | None) -> str:
    return f"{likeness.value:.3f}" if likeness else "-"


def _numbers(record: Record, population: Population) -> list[str]:
    number = Scale.of(record).text
    middle = [population.best, population.selected, population.mean]
    interval = number((population.high - population.low) / 2)
    last = [number(value) for value in (population.median, population.worst)]
    return [str(population.n), *map(number, middle), interval, *last]


def _further(record: Record) -> list[Table]:
    """Return a table of further metrics of originals and generated models; an empty list where there are none."""
    if not record.generated.further:
        return []
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column("\nalso on validation")
    pair = (("original", record.original), (escape(record.generator.name), record.generated))
    for name, _ in pair:
        for column in ("selected", "mean"):
            table.add_column(f"{name}\n{column}", justify="right")
    for metric in record.generated.further:
        found = [population.further[metric] for _, population in pair]
        cells = [f"{value:.4g}" for one in found for value in (one.selected, one.mean)]
        table.add_row(escape(metric), *cells)
    return [table]


def _similarity(record: Record) -> Table:
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column(f"\nsimilarity ({record.task.compared.likeness})")
    table.add_column("\nmean", justify="right")
    table.add_column("\n95 %", justify="right")
    table.add_column("\nkappa", justify="right")
    own, made = record.original.similarity, record.generated.similarity
    for name, alike, part in (
        ("original - original", own, "within"),
        ("generated - generated", made, "within"),
        ("original - generated", made, "originals"),
        ("original - original, nearest other", own, "nearest"),
        ("original - generated, nearest", made, "nearest"),
    ):
        kappa = getattr(alike.kappa, part, None)
        cells = (*_interval(getattr(alike, part)), "-" if kappa is None else f"{kappa:.3f}")
        table.add_row(name, *cells)
    table.caption = (
        "kappa: agreement of errors beyond chance,\nwhich does not rise with their number."
    )
    table.caption_justify = "left"
    return table


def _interval(likeness: Likeness | None) -> tuple[str, str]:
    if likeness is None:
        return "-", "-"
    low, high = likeness.bounds
    return f"{likeness.value:.3f}", f"{low:.3f} to {high:.3f}"


def _timing(record: Record) -> Table:
    table = Table(header_style="bold", pad_edge=False, box=None)
    timing = record.timing
    cells = {
        "collect": timing.collect_s,
        "fit": timing.fit_s,
        "sample": timing.sample_s,
        "sample one": timing.sample_per_model_s,
        "select": timing.select_s,
        "select one": timing.select_per_model_s,
        "score": timing.score_s,
        "SGD to target": timing.sgd_s,
        "one more": timing.marginal_s,
    }
    table.add_column(f"\nseconds on {escape(timing.device)}")
    for name in cells:
        table.add_column("\n" + name, justify="right", no_wrap=True)
    table.add_row("", *("-" if value is None else f"{value:.3g}" for value in cells.values()))
    table.caption, table.caption_justify = sampled(record), "left"
    return table


def sampled(record: Record) -> str:
    """Say how often sampling was timed, and between what its times lie."""
    repeats = record.timing.sample_repeats_s
    if repeats is None:
        return "sample: timed once, after a single model"
    if len(repeats) == 1:
        return "sample: timed once, after as many models"
    return f"sample: median of {len(repeats)}, {min(repeats):.3g} to {max(repeats):.3g}, after as many models"


VERDICTS = {
    "broken": "most of what the originals can do is lost, or most models are like strong noise",
    "copies": "most models are like checkpoints, with or without a little noise",
    "averages": "most models are like means and gaussian draws of checkpoints",
    "novel": "most models are like trained ones that no generator saw, and copying is not shown",
}
SHOWN = 0.005  # the smallest share that is named
RUNS = 5  # the fewest held-out runs of a zoo that was made elsewhere on which nothing is remarked
NO_REFERENCE = "verdict: undecided: there is no reference of held-out trained models, which --held-out 100 trains"
NO_RUNS = (
    "verdict: undecided: there is no reference of held-out trained models: collect the checkpoints here, or import "
    "those of several runs with --runs, so that --held-out takes whole runs"
)


def _verdict(record: Record) -> list[str]:
    """Say the verdict, or why there is none; and what the generator's models are made of."""
    judge = record.judge
    if judge.word is None:
        return []
    if judge.rule in (None, rule1.RULE):
        return [f"verdict: {judge.word}, by rule 1, which is withdrawn: run the command again"]
    judgement = judge.against_reference.get("generated")
    if judgement is None or judge.resolution is None:
        missing = NO_RUNS if record.zoo.track == IMPORTED else NO_REFERENCE
        return [f"verdict: {judge.word}" if judge.word == "broken" else missing]
    lines = [f"verdict: {judge.word}, {VERDICTS.get(judge.word, '')}"]
    if judge.word == "undecided":
        lines = [f"verdict: undecided: {'; '.join(verdict.doubts(verdict.Evidence.of(record)))}"]
    tells = (
        "tells training from every control"
        if judge.resolution >= verdict.RESOLUTION
        else ("does not tell training from every control")
    )
    made_of = _made_of(judgement.composition)
    return [*lines, f"made of {made_of}; the board {tells}: resolution {judge.resolution:.2f}"]


def _other_runs(record: Record) -> list[str]:
    """Say that the reference is rows of other runs, and whether these are few; nothing of models trained here."""
    reference, held = record.reference, record.populations.get("reference")
    if reference is None or held is None or reference.origin == "training":
        return []
    runs = "1 run" if reference.runs == 1 else f"{reference.runs} runs"
    line = f"reference: {held.n} rows of {runs} of the zoo's file, which no generator saw"
    if reference.runs < RUNS:
        line += f"; fewer than {RUNS} runs: rows of one run are alike, and intervals are too narrow"
    return [line]


def _made_of(mixture: Composition) -> str:
    """Return the shares of a mixture in words, the largest first, and "nothing new" where nothing is."""
    shares = sorted(mixture.shares.items(), key=lambda item: -item[1])
    named = [f"{100 * value:.0f} % {kind}" for kind, value in shares if value >= SHOWN]
    return ", ".join(named if mixture.new.value >= SHOWN else [*named, "nothing new"])


def _against_reference(record: Record) -> list[Table]:
    """Return the table of every population against the reference; an empty list without one."""
    judged = record.judge.against_reference
    if not judged:
        return []
    table = Table(header_style="bold", pad_edge=False, box=None, collapse_padding=True)
    table.add_column("\nmade of, in %", no_wrap=True)
    for column in (*KINDS, "left", "nearer", "p", "score", "variety", "off span"):
        table.add_column(f"\n{column}", justify="right", no_wrap=True)
    for key in [*(key for key in judged if key != "generated"), "generated"]:
        name = record.generator.name if key == "generated" else key
        style = "bold green" if key == "generated" else None
        table.add_row(escape(name), *_judged(record, judged[key]), style=style)
    table.caption = (
        "left: energy distance that no such mixture explains, over the reference's own.\n"
        "nearer, p: models nearer to a checkpoint than any of the reference, and the exact test.\n"
        "score: minus the reference's. variety: over the reference's.\n"
        "off span: share that no combination of checkpoints explains."
    )
    table.caption_justify = "left"
    return [table]


def _judged(record: Record, judgement: Judgement) -> list[str]:
    mixture, copying = judgement.composition, judgement.copying
    quality, variety, span = judgement.quality, judgement.variety, judgement.span_residual
    return [
        *(f"{100 * share:.0f}" for share in mixture.shares.values()),
        f"{mixture.residual:z.2f}",
        str(copying.nearer),
        f"{copying.p:.2g}",
        f"{record.task.metric.scale * quality.difference.value:+.2f}" if quality else "-",
        f"{variety.distance.value:.2f}" if variety else "-",
        "-" if span is None else f"{span:.2f}",
    ]


def _not_finite(record: Record) -> list[str]:
    """Say how many models of each population put out NaN or infinite values; an empty list where none did."""
    populations = {n: one for n, one in record.populations.items() if n != "generated"}
    populations[record.generator.name] = record.generated
    counts = [
        f"{one.not_finite} of {one.n} {name}" for name, one in populations.items() if one.not_finite
    ]
    if not counts:
        return []
    return [f"models with outputs that are not finite, which count as wrong: {', '.join(counts)}"]


def factor(value: float) -> str:
    """Return a factor as text: three significant digits, or a whole number from 100 on.

    >>> factor(10123.4), factor(0.0212)
    ('10,123', '0.0212')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def sentences(record: Record) -> list[str]:
    """Return sentences, one a line, that say the record's main results."""
    return [
        "",
        *_verdict(record),
        *_other_runs(record),
        *_not_finite(record),
        *_collapsed(record),
        *_against_noise(record),
        *_official(record),
        *speedups(record),
        *_few_images(record),
    ]


def _collapsed(record: Record) -> list[str]:
    """Say whether generated models vary less than the reference; an empty list without one."""
    judgement = record.judge.against_reference.get("generated")
    if judgement is None or judgement.variety is None:
        return []
    of = judgement.variety.distance
    word = "collapsed" if judgement.variety.collapsed else "not collapsed"
    return [
        f"{word}: generated models are {of.value:.2f} times as far apart as those of the reference "
        f"(95 %: {of.low:.2f} to {of.high:.2f})"
    ]


def _against_noise(record: Record) -> list[str]:
    """Say how much better the models are than equally novel noise-added originals, and how many are more novel."""
    advantage, metric = record.judge.advantages["noise"], record.task.metric
    lines = []
    if advantage.mean is not None:
        unit = "points" if metric.percent else metric.name
        value, low, high = (metric.scale * part for part in _ends(advantage.mean))
        lines.append(
            f"against noise-added originals that are as novel: {value:+.2f} {unit} "
            f"(95 %: {low:+.2f} to {high:+.2f})"
        )
    if advantage.beyond:
        lines.append(
            f"more novel than any noise-added original, and not compared with them: "
            f"{100 * advantage.beyond:.0f} % of the models"
        )
    return lines


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def speedups(record: Record) -> list[str]:
    """Say the speed-ups over SGD, a sentence each, and from how many models on the generator costs less."""
    timing = record.timing
    if record.judge.word == "broken":
        return ["no speed-up: the models are broken"]
    if timing.sgd_s is None:
        return ["no speed-up: there is no time of SGD to the same score in this zoo"]
    score = f"{record.task.metric.scale * timing.target_score:.4g}"
    lines = []
    if timing.speedup is not None:
        lines.append(
            f"speed-up over SGD from the start to a score of {score}: {factor(timing.speedup)}x for sampling alone"
        )
    return [*lines, _marginal(record), *_amortised(record)]


def _official(record: Record) -> list[str]:
    """Say that the zoo is an official one, and where it was trained; nothing of others."""
    if not record.zoo.official:
        return []
    where = record.zoo.collected_on or "another machine"
    return [f"the zoo is an official one: the seconds of SGD are those of its training on {where}"]


def _marginal(record: Record) -> str:
    """Say the speed-up of one more model, where the zoo is there already; or why there is none."""
    timing = record.timing
    if timing.marginal_s is None:
        return f"speed-up of one more model: {speed.without_marginal(record)}"
    if timing.speedup_marginal is None:
        return "speed-up of one more model: it takes no time to sample and select"
    start = "the start" if timing.base_s is None else "the zoo's own base"
    return (
        f"speed-up of one more model over SGD from {start}, with selecting: "
        f"{factor(timing.speedup_marginal)}x"
    )


def _amortised(record: Record) -> list[str]:
    """Say the speed-ups with all that comes before the first model; an empty list where that time is unknown."""
    timing = record.timing
    found = {models: getattr(timing, f"speedup_amortised_{models}") for models in speed.AMORTISED}
    known = [f"{factor(value)}x for {n}" for n, value in found.items() if value is not None]
    if not known:
        return []
    line = f"with collecting, fitting and selecting: {', '.join(known)} models"
    if timing.break_even_models is None:
        return [f"{line}; pays off at no number of models"]
    return [f"{line}; pays off from {timing.break_even_models:,} models"]


def _few_images(record: Record) -> list[str]:
    """Say that distances of few images are biased upwards, where models are scored by images that they draw."""
    if not record.task.compared.features:
        return []
    return [
        f"{record.task.metric.name} of {record.protocol.val_size:,} images is too large, as is any distance of few "
        "images: compare it with others of as many images, or take the unbiased one"
    ]
