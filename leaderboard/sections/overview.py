"""The first page: is a generator any good, where, does it copy, and what does it cost? HTML, and the same as tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.records.asked import Asked
from bench.records.judged import KINDS
from leaderboard import export, markup
from leaderboard.formats import UNKNOWN, times
from leaderboard.markup import Cell, Html, Line, Links
from leaderboard.matrix import Difference, Entry, Family, Matrix, Summary
from leaderboard.plots import colour

TITLE = "Leaderboard of weight generators"
ASKED = (
    "Is what a generator of network weights makes as good, as new and as varied as what training makes? "
    "Every generator "
    "gets the same trained checkpoints, and stands beside models that were really trained and held out, "
    "and beside simple "
    "controls such as a copy or an average of the checkpoints."
)
LEGEND = (
    "In a cell: what most of the models are, and whether the board can tell (resolution; 1 is best); "
    "what they are made "
    "of; mean score minus held-out training's, and variety over training's; mean score minus that of <b>copy</b>, a "
    "checkpoint drawn at random, and minus that of the strongest simple control, which the training split names. "
    "▲ better, = cannot be told apart, ▼ worse: 95 % intervals, paired over validation examples, in the "
    "board's own unit. "
    "Scores of different boards are never averaged; wins, ties and losses are counted."
)
CAPTION = (
    "Mean validation score of generated models, by board. Bold: no generator on the board is better beyond chance "
    "(Holm, 5 %). Scores of different boards are not comparable."
)
WIDE = 6  # families beside each other: more would need sideways scrolling
NEWEST = 6  # records that are listed as new
CITE = """@misc{yardstick,
  title  = {The yardstick for generated neural networks},
  note   = {Benchmark suite and leaderboard, protocol 2},
  year   = {2026}
}"""


@dataclass(frozen=True)
class Finding:
    """A finding of the records: a number, what it is, and where it comes from.

    Attributes:
        number, sentence: plain text.
        page, name: of the link, see ``Links.to``.
    """

    number: str
    sentence: str
    page: str
    name: str = ""


def findings(m: Matrix) -> list[Finding]:
    """Return what the records say, for the reader of one minute: of all generators, then of that on most boards."""
    if not m.generators:
        return []
    first = m.generators[0]
    own, summary = m.of(first), Summary.of(m.of(first))
    told = [entry for entry in m.entries.values() if entry.told]
    able = {entry.board["board"] for entry in told}
    novel = {entry.board["board"] for entry in told if entry.word == "novel"}
    return [
        Finding(
            f"{len(novel)} of {len(able)}",
            "boards that can tell training from controls call a generator novel",
            "methods",
        ),
        *_against(first, summary),
        *_words(first, own),
        *_broken(first, m),
        *_cost(first, summary),
    ]


def _against(name: str, summary: Summary) -> list[Finding]:
    tally, copy = summary.control, summary.copy
    known = tally.wins + tally.ties + tally.losses
    if not known:
        return []
    return [
        Finding(
            f"{tally.wins} of {known}",
            f"boards where {name} beats the strongest simple control ({tally.ties} ties, {tally.losses} losses); "
            "it beats "
            f"a mere copy on {copy.wins}, ties on {copy.ties} and loses on {copy.losses}",
            "generator",
            name,
        )
    ]


def _words(name: str, own: Sequence[Entry]) -> list[Finding]:
    """Say what a generator's models are on boards that can tell."""
    words = Counter(entry.word for entry in own if entry.told)
    if not words:
        return []
    word, count = words.most_common(1)[0]
    said = {
        "novel": "are new",
        "copies": "copy",
        "averages": "average the checkpoints",
        "broken": "are broken",
    }
    does = said.get(word, "are undecided")
    sentence = f"boards that can tell: most models of {name} {does}"
    return [Finding(f"{count} of {words.total()}", sentence, "generator", name)]


def _broken(name: str, m: Matrix) -> list[Finding]:
    """Say in which regime a generator fails most."""
    worst: tuple[int, int, str] = (0, 0, "")
    for regime, places in m.regimes().items():
        entries = [m.entries[name, place] for place in places if (name, place) in m.entries]
        broken = sum(entry.word == "broken" for entry in entries)
        worst = max(worst, (broken, len(entries), regime))
    if not worst[0]:
        return []
    sentence = f"boards of “{worst[2][0].lower()}{worst[2][1:]}”: {name} is broken"
    return [Finding(f"{worst[0]} of {worst[1]}", sentence, "generator", name)]


def _cost(name: str, summary: Summary) -> list[Finding]:
    if summary.cost is None:
        return []
    low, high = times(summary.costs[0]), times(summary.costs[-1])
    sentence = (
        f"cheaper than SGD over 100 models, collecting and fitting included: {name}, median over boards where it works "
        f"({low} to {high})"
    )
    return [Finding(times(summary.cost), sentence, "generator", name)]


# HTML ----------------------------------------------------------------------------------------------------------------


def page(m: Matrix, runs: pd.DataFrame, links: Links) -> str:
    """Return the page below its title.

    Args:
        m: the matrix.
        runs: the table of runs.
        links: addresses of other pages.
    """
    cards = "".join(_card(one, links) for one in findings(m))
    tables = [
        _regime(m, name, columns[start : start + WIDE], links)
        for name, columns in m.regimes().items()
        for start in range(0, len(columns), WIDE)
    ]
    more = (
        f"<p>{m.left_out:,} more families of boards are not shown here.</p>" if m.left_out else ""
    )
    return markup.block(
        f"<p>{markup.text(ASKED)} {markup.link('How it is measured.', links.to('methods'))}</p>",
        f'<ul class="findings">{cards}</ul>' if cards else "",
        _summary(m, len(m.families), links),
        f"<p><small>{LEGEND}</small></p>",
        *tables,
        more,
        markup.folded(f"What is new ({len(runs):,} records)", newest(runs, links, NEWEST)),
        markup.folded("Cite", markup.code(CITE)),
    )


def _card(one: Finding, links: Links) -> str:
    address = links.to(one.page, one.name)
    return f"<li><b>{markup.text(one.number)}</b>{markup.link(one.sentence, address)}</li>"


def _named(name: str, links: Links) -> str:
    return markup.dot(colour(name)) + markup.link(name, links.to("generator", name))


def _summary(m: Matrix, count: int, links: Links) -> str:
    heads = [
        "Generator",
        "Boards",
        "Against copy: wins-ties-losses",
        "Against the strongest control",
        "Cheaper than SGD, 100 models",
        "Computed again",
    ]
    lines = []
    for name in m.generators:
        one = Summary.of(m.of(name))
        span = f" ({times(one.costs[0])} to {times(one.costs[-1])})" if len(one.costs) > 1 else ""
        cost = UNKNOWN if one.cost is None else times(one.cost) + span
        texts = (
            f"{one.families} of {count}",
            one.copy.text,
            one.control.text,
            cost,
            f"{one.checked} of {one.families}",
        )
        lines.append(
            Line(_named(name, links), [Cell(text, number=True) for text in texts], "generator")
        )
    return markup.table(heads, lines, "Generators over all families of boards")


def _regime(m: Matrix, name: str, places: Sequence[int], links: Links) -> str:
    heads = ["Generator", *(_family(m.families[place], links) for place in places)]
    lines = []
    for generator in m.generators:
        cells = [
            _cell(m.entries.get((generator, place)), m.families[place], links)
            or _missing(m, generator, place)
            for place in places
        ]
        if any((generator, place) in m.entries for place in places):
            lines.append(
                Line(_named(generator, links), [Cell(cell) for cell in cells], "generator")
            )
    return markup.table(heads, lines, markup.text(name))


def _family(family: Family, links: Links) -> Html:
    board = family.main
    again = f", {len(family.boards)} boards" if len(family.boards) > 1 else ""
    title = markup.link(family.title, links.to("board", board["board"]))
    about = f"<small>K={board['k']}, {markup.text(board['metric'])}{again}</small>"
    return Html(f'<span class="long">{title}{about}</span>')


def _missing(m: Matrix, generator: str, place: int) -> str:
    """Return the command that fills an empty cell, from another generator's record of the family."""
    beside = next((entry for (_, other), entry in m.entries.items() if other == place), None)
    if beside is None:  # controls alone were run there
        return UNKNOWN
    return markup.folded("not run", markup.code(command(beside.record.request, generator)))


def _cell(entry: Entry | None, family: Family, links: Links) -> str:
    """Return a cell; empty where there is no entry."""
    if entry is None:
        return ""
    board = entry.board
    word, _, mark = (entry.verdict or UNKNOWN).partition(" (")
    address = links.to("board", board["board"], row=entry.row)
    elsewhere = "" if board["board"] == family.main["board"] else f", K={board['k']}"
    mark = f"<small>({markup.text(mark)}{elsewhere}</small>" if mark else ""
    parts = [f'<span class="strong">{markup.link(word, address)}</span>{mark}']
    parts += [markup.bar(entry.shares)] if entry.shares else []
    if entry.quality is not None:
        varied = "" if entry.variety is None else f", variety {entry.variety:.2f}"
        parts.append(f"<small>training {entry.scale.difference(entry.quality)}{varied}</small>")
    parts += [
        _difference("copy", entry.copy, entry),
        _difference(entry.named, entry.control, entry),
    ]
    return "".join(parts)


def _difference(name: str, found: Difference | None, entry: Entry) -> str:
    if found is None:
        return ""
    of = entry.scale.difference
    span = (
        "" if found.low is None or found.high is None else f" ({of(found.low)} to {of(found.high)})"
    )
    return (
        f"<small>{markup.text(name.replace('-', ' '))} {found.sign} {of(found.value)}{span}</small>"
    )


def command(asked: Asked, generator: str) -> str:
    """Return the command that fills an empty cell, from what a record of the same board was asked for."""
    fields = {**asked.given(), "generator": generator, "generator_settings": {}, "align": False}
    return Asked(**fields).command


def newest(runs: pd.DataFrame, links: Links, count: int) -> str:
    """Return a list of the newest records."""
    newest = runs.sort_values("created", ascending=False, kind="stable").head(count)
    items = "".join(
        f"<li>{markup.text(str(row.created)[:10])}: "
        f"{markup.link(f'{row.generator} on {row.task}, seed {row.seed}', links.to('record', str(row.id)))}</li>"
        for row in newest.itertuples()
    )
    return markup.block(f"<ul>{items}</ul>")


# The same as tables --------------------------------------------------------------------------------------------------


def flat(m: Matrix) -> pd.DataFrame:
    """Return the whole matrix as text, one row a cell, for CSV and Markdown."""
    rows = []
    for (generator, place), entry in m.entries.items():
        family, of = m.families[place], entry.scale.difference
        row = {
            "generator": generator,
            "regime": family.regime,
            "board": family.title,
            "K": str(entry.board["k"]),
            "key": str(entry.board["key"]),
            "mean": entry.scale.text(entry.score),
            "verdict": entry.verdict or UNKNOWN,
            **{
                kind: f"{100 * entry.shares[kind]:.0f}" if entry.shares else UNKNOWN
                for kind in KINDS
            },
            "quality": UNKNOWN if entry.quality is None else of(entry.quality),
            "variety": UNKNOWN if entry.variety is None else f"{entry.variety:.2f}",
        }
        for name, found in (("copy", entry.copy), ("control", entry.control)):
            ends = (None, None, None) if found is None else (found.value, found.low, found.high)
            labels = (f"minus {name}", f"minus {name}, low", f"minus {name}, high")
            row |= {k: UNKNOWN if v is None else of(v) for k, v in zip(labels, ends, strict=True)}
        row |= {
            "control": entry.named,
            "cost saved": UNKNOWN if entry.cost is None else times(entry.cost),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def latex(m: Matrix) -> str:
    """Return mean scores as a LaTeX table, boards down, so that it fits a page; bold is what none is better than."""
    rows, bold = [], set()
    for place, family in enumerate(m.families):
        row = [f"{family.title}, {family.regime[0].lower()}{family.regime[1:]}"]
        for column, name in enumerate(m.generators, 1):
            entry = m.entries.get((name, place))
            row.append(entry.scale.text(entry.score) if entry else UNKNOWN)
            bold |= {(place, column)} if entry and entry.leads else set()
        rows.append(row)
    table = pd.DataFrame(rows, columns=["board", *m.generators])
    return export.latex(table, caption=CAPTION, bold=bold)


def exports(m: Matrix) -> dict[str, tuple[str, str, str]]:
    """Return the matrix as files, by label: content, name and media type."""
    table = flat(m)
    return {
        "LaTeX": (latex(m), "matrix.tex", "text/x-tex"),
        "CSV": (export.csv(table), "matrix.csv", "text/csv"),
        "Markdown": (export.markdown(table), "matrix.md", "text/markdown"),
    }
