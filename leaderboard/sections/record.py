"""One record as HTML: what it is, where each number comes from, and all the rest, folded."""

import json
from typing import Any

from bench.records import report, versions
from bench.records.record import Record
from bench.records.scale import Scale
from leaderboard import markup
from leaderboard.columns import GENERATED, NAMED, populations, told
from leaderboard.formats import UNKNOWN
from leaderboard.markup import Cell, Html, Line, Links

TIERS = {
    "claimed": "as its author sent it; nobody has computed it again",
    "rescored": "its numbers were computed again from the stored weights",
    "regenerated": "its weights were made again from the seed, and its numbers from them",
}
SCORES = (
    "best",
    "selected",
    "mean",
    "interval",
    "median",
    "worst",
)  # columns of the table of populations
FOLDED = ("task", "zoo", "reference", "generator", "protocol", "judge", "timing", "environment")

# Sentences that say what a figure or table shows.
COMPOSITION = (
    "The mixture of trained models that no generator saw (new), of checkpoints (copies), and of controls (averages, "
    "broken) that best reproduces each population. A good board calls the reference new and every control what it is."
)
JUDGED = (
    "left: distance that no such mixture explains, over the reference's own. nearer: models nearer to a "
    "checkpoint than "
    "any of the reference, with the exact test's p. score: minus the reference's. variety, Vendi: over "
    "the reference's. "
    "outputs, weights: p of two-sample tests against the reference. off span: share of a model that no combination of "
    "checkpoints explains."
)
HEAT = (
    "The same parameters (columns) of some originals, generated models and networks at random initialisation (rows). "
    "Rows that are alike are models that are alike. After the paper's Figs. 3 and 6b."
)
HISTOGRAM = "How the values of these parameters are distributed in each of the three."
PAIRS = "Similarity of every pair of models: originals first, then generated ones."
PATH = (
    "t-SNE of parameters; lines are what the generator decodes along its denoising, small marks first. "
    "After the paper's "
    "Fig. 5a."
)


def head(record: Record, board: str, title: str, links: Links) -> str:
    """Return what the record is: when, of what, how far verified, on which machine, from which code.

    Args:
        record: the record.
        board: name of its board.
        title: the board's title.
        links: addresses of other pages.
    """
    machine, commit = record.environment, record.environment.git_commit
    dirty = ", with changes that were not committed" if machine.git_dirty else ""
    pairs = {
        "Board": markup.link(title, links.to("board", board)),
        "Generator": markup.link(
            record.generator.name, links.to("generator", record.generator.name)
        ),
        "Seed": markup.text(record.protocol.seed),
        "Made": markup.text(f"{record.created:%Y-%m-%d %H:%M} UTC"),
        "Checked": markup.text(f"{record.tier}: {TIERS[record.tier]}"),
        "Commit": markup.text((commit or "not known") + dirty),
        "Machine": markup.text(
            f"{machine.gpu or machine.cpu}, {machine.threads} threads; {record.timing.device}"
        ),
        "Repeat": markup.code(record.command),
    }
    said = "".join(f"<p>{markup.text(line)}</p>" for line in report.sentences(record) if line)
    return markup.block(markup.facts(pairs), said)


def numbers(record: Record) -> str:
    """Return where the headline numbers come from: value, population, file, and the command that verifies them."""
    scale, made = Scale.of(record), record.artifacts.generated
    where = (
        f"{record.generated.n} generated models, {record.protocol.val_size:,} validation examples"
    )
    rows = {
        name: NAMED[name].text(record, GENERATED, scale)
        for name in ("mean", "interval", "selected", "best")
    }
    lines = [
        Line(
            markup.text(NAMED[name].label),
            [Cell(markup.text(value), number=True), Cell(markup.text(where))],
        )
        for name, value in rows.items()
    ]
    file = f"generated weights: {made.file}, SHA-256 {made.sha256}"
    verify = f"python -m bench verify {record.key}/{record.id}.json --from-seed"
    return markup.block(
        markup.table(
            [
                Html(f'<span class="long">{markup.text(record.task.metric.name)}</span>'),
                "Value",
                "Of",
            ],
            lines,
            "This number",
        ),
        f"<p>{markup.text(file)}</p>",
        "<p>Compute it again, in the folder of results:</p>",
        markup.code(verify),
    )


def scores(record: Record) -> str:
    """Return the table with the statistics of every population."""
    scale, further = Scale.of(record), list(record.generated.further)
    heads = [
        "Population",
        "Models",
        *(NAMED[name].label for name in SCORES),
        "Std",
        "Nearest",
        "Kappa",
    ]
    lines = []
    for name in (GENERATED, *populations(record)):
        one = record.populations[name]
        kappa = one.similarity.kappa.nearest if one.similarity.kappa else None
        texts = [
            str(one.n),
            *(NAMED[column].text(record, name, scale) for column in SCORES),
            UNKNOWN if one.std is None else scale.text(one.std),
            NAMED["nearest_iou"].text(record, name, scale),
            UNKNOWN if kappa is None else f"{kappa:.3f}",
            *(
                f"{one.further[metric].mean:.4g}" if metric in one.further else UNKNOWN
                for metric in further
            ),
        ]
        lines.append(_line(record, name, texts))
    return markup.block(markup.table([*heads, *(f"mean {metric}" for metric in further)], lines))


def judged(record: Record) -> str:
    """Return the table of what every population is made of, and its numbers beside the reference; empty without one."""
    found, scale = record.judge.against_reference, Scale.of(record)
    heads = [
        "Population",
        "Made of",
        "Left",
        "Nearer",
        "p",
        "Score",
        "Variety",
        "Vendi",
        "Outputs",
        "Weights",
        "Off span",
    ]
    lines = []
    for name in (GENERATED, *populations(record)):
        if name not in found:
            continue
        one = found[name]
        variety, fidelity = one.variety, one.fidelity
        texts = [
            f"{one.composition.residual:z.2f}",
            str(one.copying.nearer),
            f"{one.copying.p:.2g}",
            NAMED["quality"].text(record, name, scale),
            f"{variety.distance.value:.2f}" if variety else UNKNOWN,
            f"{variety.vendi.value:.2f}" if variety else UNKNOWN,
            f"{fidelity.outputs:.2g}" if fidelity else UNKNOWN,
            f"{fidelity.weights:.2g}" if fidelity else UNKNOWN,
            UNKNOWN if one.span_residual is None else f"{one.span_residual:.2f}",
        ]
        lines.append(_line(record, name, texts, Cell(markup.bar(one.composition.shares))))
    return markup.block(markup.table(heads, lines)) if lines else ""


def _line(record: Record, name: str, texts: list[str], *before: Cell) -> Line:
    label = record.generator.name if name == GENERATED else name
    kind = "generator" if name == GENERATED else "thin"
    return Line(
        markup.text(label), [*before, *(Cell(markup.text(one), number=True) for one in texts)], kind
    )


def rest(record: Record) -> str:
    """Return every other field of the record, folded."""
    content: dict[str, Any] = json.loads(record.to_json())
    if record.judge.word:
        content["judge"]["word"] = f"{record.judge.word} ({told(record)})"
    if withdrawn := versions.withdrawn(record):
        content["judge"]["withdrawn"] = "; ".join(
            f"{name}: {why}" for name, why in withdrawn.items()
        )
    parts = [markup.folded(name, markup.facts(flat(content[name] or {}))) for name in FOLDED]
    return markup.block(*parts, markup.folded("files", files(record)))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the entries of nested mappings by dotted name, as HTML."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = markup.text(
                value if isinstance(value, str) else json.dumps(value)
            )
    return found


def files(record: Record) -> str:
    """Return the table of the record's files with their SHA-256."""
    named = record.artifacts
    every = {
        "zoo": named.zoo,
        "generated": named.generated,
        "reference": named.reference,
        "side file": named.side,
    }
    lines = [
        Line(name, [Cell(markup.text(one.file)), Cell(markup.text(one.sha256))])
        for name, one in every.items()
        if one
    ]
    return markup.table(["What", "File", "SHA-256"], lines)
