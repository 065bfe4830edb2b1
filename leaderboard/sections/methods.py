"""How it is measured: protocol, verdict with its error rates, glossary, controls, submitting and citing, as HTML."""

import functools

from markdown_it import MarkdownIt

from leaderboard import markup
from leaderboard.columns import COLUMNS, FIXED
from leaderboard.markup import Cell, Line

PROTOCOL = """
A **parameter generator** synthesises the weights of a trained network instead of training them. Here every generator
gets the same checkpoints and is scored on the real task, beside controls that need no learning at all.

1. **Collect** a zoo of K checkpoints: consecutive optimizer steps of one run in which only a subset of the weights
   moves (track *trajectory*), or K independent runs (track *seeds*). The rest is frozen, so a checkpoint is its vector.
2. **Fit** the generator on these vectors. It sees neither data nor labels; one that asks for training scores says so.
3. **Sample** new vectors, 100 by default.
4. **Hold out** models that are trained as the checkpoints were, 100 by default, and that no generator sees: the
   reference.
5. **Select** one generated model on the training split. Validation only reports.
6. **Score** originals, reference, generated models and controls on the same validation examples, and compare.

A **board** is one zoo, scored in one way: same data, architecture, layers, checkpoints and numbers of samples and
examples. Its key is a hash of all that. Records of different boards are never ranked together.
"""

VERDICT = """
What are most of the generated models like? The mixture of reference, checkpoints and controls that best reproduces
them, in what they put out and in their weights, tells their shares: **new** (the reference), **copies**, **averages**,
**broken**.

| word | when |
|---|---|
| broken | most of what the checkpoints can do is lost, or at least half of the models are like strong noise |
| copies | at least half of the models are like checkpoints, with or without a little noise |
| averages | at least half are like means of checkpoints, steps between them, or gaussian draws |
| novel | at least half are like trained models that no generator saw, and copying is not shown |
| undecided | no reference, too few models, a board that cannot tell training from controls, or no mixture that fits |

A word with **(withdrawn)** is of rule 1. It called means of 16 aligned checkpoints novel, and held-out trained models
copies.

**Resolution** says whether a board can tell at all: the new share of one half of the held-out trained models against
the other, less the largest of any control. Near 1 it can; below 0.3 no word is given but *broken*.

On trials with planted generators whose truth is known (digits; three regimes of 40 zoos each; `docs/verdict.md` has
the tables) held-out training was called novel on 120 of 120 zoos, and nothing trivial on any: at most 8.8 % each, at
95 %.
"""

GROUPS = """
Rows are sorted by a score, and fall into groups **A**, **B** and so on: a group begins with the first row that is
told apart from the first of the group before. Pairs are tested over the same validation examples, over seeds and over
models, all pairs of a board together (Holm): two equal rows are told apart on at most 5 % of boards. Differences on
the first page and on a generator's page have 95 % intervals that are paired in the same way. Scores of different
boards are never averaged.
"""

CONTROLS = """
Averages, steps and gaussians have an **aligned** twin wherever hidden units can be permuted: it is made of checkpoints
whose hidden units were put in the same order first.

| control | what it is |
|---|---|
| copy | a checkpoint of the zoo, drawn at random: a generator that only memorises scores like it |
| average | the mean of all checkpoints (the paper's "ensemble") |
| interpolation | the mean of 16 random checkpoints |
| mean_of_two | the mean of two random checkpoints |
| step | a point between two random checkpoints, a tenth to half of the way |
| gaussian | a normal distribution for each parameter |
| full_gaussian | one normal distribution of all parameters, with the covariance of the checkpoints |
| low_rank_gaussian | the same in the first 8 principal directions alone |
| shuffled | a checkpoint whose values are shuffled within each tensor: right sizes, nothing learned |
| noise | a checkpoint with Gaussian noise, in eight amplitudes relative to each tensor's spread |
| finetune | a few more steps of SGD from a checkpoint |
| greedy_soup | checkpoints averaged as long as the training score rises |
"""

SUBMIT = """
1. Run it: `python -m bench run --task cifar100 --generator my_package.module:MyGenerator --results results`.
2. Verify it yourself: `python -m bench verify results/KEY/ID.json --from-seed`.
3. Check the files: `python -m bench check results`, and pack them with their weights:
   `python -m bench export results/KEY/ID.json`.
4. Open a pull request that adds the record and its side file under `leaderboard/results/KEY/`.

A record that was not run from its named command, or whose numbers do not follow from its weights, is not listed.
"""


@functools.cache
def page() -> str:
    """Return the page below its title."""
    sections = {
        "Protocol": PROTOCOL, "The verdict": VERDICT, "Groups and intervals": GROUPS, "Controls": CONTROLS,
        "How to submit": SUBMIT,
    }  # fmt: skip
    written = MarkdownIt().enable("table")
    parts = [f"<h2>{title}</h2>{written.render(text)}" for title, text in sections.items()]
    return markup.block(*parts[:3], "<h2>How to read each number</h2>", glossary(), *parts[3:])


def glossary() -> str:
    """Return a table that says how to read each column of a board's table; headings of columns link to its rows."""
    lines = [
        Line(
            f'<span id="{column.name}">{markup.text(column.label)}</span>',
            [Cell(markup.text(column.help))],
        )
        for column in (*FIXED, *COLUMNS)
        if column.help
    ]
    return markup.table(["Column", "How to read it"], lines)
