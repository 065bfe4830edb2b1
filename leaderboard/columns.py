"""The columns of a board's table. Each is declared once, for the table, its exports, the pages and the documentation.

A new column is one ``Column`` in ``COLUMNS``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from bench.records import speed, verdict, versions
from bench.records.fields import Interval
from bench.records.judged import Judgement
from bench.records.population import Population
from bench.records.record import Record
from bench.records.scale import Scale
from leaderboard import formats, pooling
from leaderboard.formats import Format
from leaderboard.pooling import Pool

GENERATED, ORIGINAL, REFERENCE = "generated", "original", "reference"
ONE_FIT = "*"  # mark of a group that holds for one fit of the generator
DRAWS = "expected of m models drawn from the population; the note below the table says which m"
WITHDRAWN = " (withdrawn)"  # mark of what ``bench.records.versions`` withdraws
LIKE = {
    "copies": "checkpoints, with or without a little noise",
    "averages": "means of checkpoints, steps between them, or gaussian draws",
    "broken": "checkpoints under strong noise",
}
Read = Callable[[Record, str], Any]  # a record and the name of one of its populations -> a value


@dataclass(frozen=True)
class Field:
    """One value of a table's row, and one column of the CSV file.

    Attributes:
        name: its name in the CSV file and in the table of runs.
        read: returns its value for a population of a record; None where it is unknown.
        pool: returns one value for the runs of one row, which differ in the seed.
        across: returns the values of all generators of a board, corrected for multiple testing; None corrects nothing.
        dtype: type of the table's column.
    """

    name: str
    read: Read
    pool: Pool = pooling.mean
    across: Callable[[Sequence[float]], list[float]] | None = None
    dtype: Literal["float64", "Int64", "object"] = "float64"


@dataclass(frozen=True)
class Column:
    """One column of a board's table.

    Attributes:
        name: its name in a page's address.
        label: its heading.
        help: how to read it, for readers of the page.
        format: how its fields' values are shown in one cell.
        fields: its values; none for a column that the table itself makes: group, generator and kind.
        better: how rows are sorted by its first field: as the board's score, or the higher or lower value first; None
            where they cannot be sorted by it.
    """

    name: str
    label: str
    help: str
    format: Format
    fields: tuple[Field, ...] = ()
    better: Literal["score", "higher", "lower"] | None = None

    @property
    def names(self) -> list[str]:
        """The names of the table's columns that its cells are made of."""
        return [field.name for field in self.fields] or [self.name]

    def text(self, record: Record, population: str, scale: Scale) -> str:
        """Return the text of its cell for one population of one record."""
        return self.format.text(scale, *(field.read(record, population) for field in self.fields))


def populations(record: Record) -> list[str]:
    """Return the names of the populations that stand beside the generated models, in the order of a table."""
    held = [REFERENCE] if REFERENCE in record.populations else []
    return [ORIGINAL, *held, *record.controls]


# Readers of fields ---------------------------------------------------------------------------------------------------


def of_population(read: Callable[[Population], Any]) -> Read:
    """Return a reader of a value that every population has."""
    return lambda record, name: read(record.populations[name])


def of_run(read: Callable[[Record], Any]) -> Read:
    """Return a reader of a value that only the generated models have; it gives None for other populations."""
    return lambda record, name: read(record) if name == GENERATED else None


def _interval_end(name: str) -> Read:
    """Return a reader of one end of the interval of the mean over models.

    It gives None for a single model, and for the steps of one run: the record's interval is a plain bootstrap, which
    takes models as independent, and neighbouring steps have correlations of up to 0.96.
    """

    def end(record: Record, of: str) -> float | None:
        population = record.populations[of]
        steps = of == ORIGINAL and record.zoo.track == "trajectory"
        return None if steps or population.n == 1 else float(getattr(population, name))

    return end


def _nearest(record: Record, name: str) -> float | None:
    nearest = record.populations[name].similarity.nearest
    return nearest.value if nearest else None


def _above_noise(read: Callable[[Interval], float]) -> Read:
    def advantage(record: Record) -> float | None:
        noise = record.judge.advantages.get("noise")
        return read(noise.mean) if noise and noise.mean else None

    return of_run(advantage)


def _p_best(record: Record) -> float | None:
    test = record.judge.tests and record.judge.tests.best_original
    if not test:
        return None
    return test.p if test.wins > test.losses else 1.0


def _marked(record: Record, number: str, text: str | None) -> str | None:
    """Return a text with a mark where the number that it tells is withdrawn in this record."""
    return f"{text}{WITHDRAWN}" if text and number in versions.withdrawn(record) else text


def _collapsed(record: Record) -> str | None:
    collapsed = record.judge.collapsed
    said = None if collapsed is None else "yes" if collapsed else "no"
    return _marked(record, "collapsed", said)


def told(record: Record) -> str:
    """Return in words whether a record's board can tell training from controls, without which its "
    "verdict is nothing."""
    resolution = record.judge.resolution
    if versions.WORD in versions.withdrawn(record):
        return "withdrawn" if record.judge.sees_training is not False else "withdrawn, cannot tell"
    if resolution is None:
        return "no reference"
    low = "" if resolution >= verdict.RESOLUTION else ", cannot tell"
    return f"resolution {resolution:.2f}{low}"


def _verdict(record: Record) -> str | None:
    """Return the word, and whether its board can tell."""
    return f"{record.judge.word} ({told(record)})" if record.judge.word else None


def _against(read: Callable[[Judgement], Interval | None], part: str = "value") -> Read:
    """Return a reader of a part of an interval that a population has beside the reference; None where it has none."""

    def against(record: Record, name: str) -> float | None:
        judgement = record.judge.against_reference.get(name)
        interval = judgement and read(judgement)
        return getattr(interval, part) if interval else None

    return against


def _interval(
    name: str, read: Callable[[Judgement], Interval | None], *, share: bool = False
) -> tuple[Field, ...]:
    """Return the fields of a value beside the reference and of its interval, which is over seeds if there are several.

    Args:
        name: of the value's field.
        read: returns the interval.
        share: whether no value can be below 0 or above 1.
    """
    low, high = pooling.mean_below(name), pooling.mean_above(name)
    if share:
        low, high = pooling.within_one(low), pooling.within_one(high)
    return (
        Field(name, _against(read)),
        Field(f"{name}_low", _against(read, "low"), low),
        Field(f"{name}_high", _against(read, "high"), high),
    )


def _score(name: str, label: str, help_: str) -> Column:
    """Return the column of a statistic of a population's scores."""
    read = of_population(attrgetter(name))
    return Column(name, label, help_, formats.SCORE, (Field(name, read),), better="score")


def _amortised(models: int) -> Column:
    """Return the column of the speed-up of this many models, with all that comes before the first."""
    name = f"speedup_amortised_{models}"
    what = "one model" if models == 1 else f"{models} models"
    return Column(
        name,
        f"All of {models}",
        f"SGD's time for {what}, over what {what} cost: collecting and fitting, sampling and selecting.",
        formats.TIMES,
        (Field(name, of_run(attrgetter(f"timing.{name}"))),),
        better="higher",
    )


# The columns ---------------------------------------------------------------------------------------------------------

# The first columns of every table.
FIXED = (
    Column(
        "group", "Group",
        "A is the best. A group begins with the first row that is worse than the first of the group before "
        "by more than "
        f"chance. With {ONE_FIT} it is of one fit of the generator, since there is one seed: another fit may stand "
        "elsewhere. There is none where chance is not known; the note below the table says why.",
        formats.WORD,
    ),
    Column("generator", "Generator", "", formats.WORD),
    Column(
        "kind", "Kind",
        "A control is what any generator must beat; the reference is trained models that no generator saw.",
        formats.WORD,
    ),
)  # fmt: skip
COLUMNS = (
    Column(
        "seeds", "Seeds", "Fits pooled in this row: numbers are means over seeds.", formats.WHOLE,
        (Field("seeds", of_run(lambda record: 1), pooling.total, dtype="Int64"),),
    ),
    _score("best", "Best", f"Best on validation, {DRAWS}. An optimist's number, since validation chose it."),
    _score("selected", "Selected", f"Score of the model that training data chose, {DRAWS}."),
    _score("mean", "Mean", "Over all samples."),
    _score("median", "Median", f"Median, {DRAWS}."),
    _score("worst", "Worst", f"Worst, {DRAWS}."),
    Column(
        "interval", "95 %", "95 % interval of the mean: over models, or over seeds where there are several. "
        "None for the checkpoints of a trajectory: steps of one run are not independent.",
        formats.SCORES,
        (
            Field("low", _interval_end("low"), pooling.mean_below("mean")),
            Field("high", _interval_end("high"), pooling.mean_above("mean")),
        ),
    ),
    Column(
        "p_best", "p",
        "Selected model better than the best original: exact McNemar test, Holm's correction over the generators of "
        "this table; 1 where it is not better, the largest of several seeds.",
        formats.SHORT,
        (Field("p_best", of_run(_p_best), pooling.largest, across=pooling.holm),),
    ),
    Column(
        "nearest_iou", "Nearest",
        "Similarity to the nearest original: IoU of wrong predictions, or overlap of image features; 1 is a copy. "
        "Read it beside the originals' own, which is with the nearest other one.",
        formats.SHARE,
        (Field("nearest_iou", _nearest),),
    ),
    Column(
        "novelty", "Novelty", "Median of 1 - this similarity; 0 is a copy.", formats.SHARE,
        (Field("novelty", of_run(attrgetter("judge.median_novelty"))),),
        better="higher",
    ),
    Column(
        "advantage", "Advantage", "Mean score above that of noise-added originals of the same novelty.",
        formats.DIFFERENCE,
        (
            Field("advantage", _above_noise(attrgetter("value"))),
            Field("advantage_low", _above_noise(attrgetter("low"))),
            Field("advantage_high", _above_noise(attrgetter("high"))),
        ),
        better="higher",
    ),
    Column(
        "seconds_per_model", "s a model", "Seconds to sample one model.", formats.SHORT,
        (Field("seconds_per_model", of_run(attrgetter("timing.sample_per_model_s"))),),
        better="lower",
    ),
    Column(
        "speedup", "Speedup",
        "SGD's time from the start to the same score, over the time to sample one model. Broken models have none.",
        formats.TIMES,
        (Field("speedup", of_run(attrgetter("timing.speedup"))),),
        better="higher",
    ),
    Column(
        "speedup_marginal", "One more",
        "SGD's time from the zoo's own base to the same score, over the time to sample and select one model; missing "
        "where the base is there already.",
        formats.TIMES,
        (Field("speedup_marginal", of_run(attrgetter("timing.speedup_marginal"))),),
        better="higher",
    ),
    *(_amortised(models) for models in speed.AMORTISED),
    Column(
        "break_even", "Break-even", "Models after which the generator has cost less time than SGD, selecting each.",
        formats.WHOLE,
        (Field("break_even", of_run(attrgetter("timing.break_even_models"))),),
    ),
    Column(
        "verdict", "Verdict",
        "What most of the models are, by rule 2: broken, copies, averages or novel; undecided where there is a doubt. "
        "Behind it whether the board can tell training from controls (its resolution; 1 is best). "
        "Withdrawn: a word of rule 1, which called averages novel and trained models copies.",
        formats.WORD,
        (Field("verdict", of_run(_verdict), pooling.counted_before_marks, dtype="object"),),
    ),
    Column(
        "new", "New, %",
        "Share of the models that are like trained ones which no generator saw (the reference), with its 95 % "
        "interval. The rest is like copies, averages, or broken models.",
        formats.PERCENT, _interval("new", attrgetter("composition.new"), share=True),
        better="higher",
    ),
    *(
        Column(
            kind, f"{kind.capitalize()}, %", f"Share of the models that are like {like}, with its 95 % interval.",
            formats.PERCENT, _interval(kind, attrgetter(f"composition.{kind}"), share=True),
        )
        for kind, like in LIKE.items()
    ),
    Column(
        "quality", "Quality", "Mean score minus the reference's, with its 95 % interval; above 0 is better.",
        formats.DIFFERENCE, _interval("quality", lambda one: one.quality.difference if one.quality else None),
        better="higher",
    ),
    Column(
        "resolution", "Resolution",
        "How well the board tells training from controls: the new share of one half of the reference, less the "
        f"largest of any control. 1 is best; below {verdict.RESOLUTION:g} no word is given but broken.",
        formats.SHORT, (Field("resolution", of_run(attrgetter("judge.resolution"))),),
    ),
    Column(
        "collapsed", "Collapsed",
        "Generated models vary less than the reference, beyond chance; with several seeds, in how many. Withdrawn: "
        "whether they are more alike than the originals, without an interval.", formats.WORD,
        (Field("collapsed", of_run(_collapsed), pooling.counted_before_marks, dtype="object"),),
    ),
    Column(
        "tier", "Checked", "How far the record was verified: claimed, rescored or regenerated.", formats.WORD,
        (Field("tier", of_run(attrgetter("tier")), pooling.counted, dtype="object"),),
    ),
    Column(
        "device", "Device", "", formats.WORD,
        (Field("device", of_run(attrgetter("timing.device")), pooling.first, dtype="object"),),
    ),
)  # fmt: skip
# The columns that a table shows at first, in this order, beside group and name; the reader can add the others.
OPENING = ("mean", "interval", "selected", "verdict", "quality", "speedup_amortised_100")

NAMED = {column.name: column for column in (*FIXED, *COLUMNS)}
FIELDS = tuple(field for column in COLUMNS for field in column.fields)
RANKED = {column.name: column.better for column in COLUMNS if column.better}
