"""The page on the protocol, the meaning of each number, the controls, and how to submit."""

import streamlit as st

from bench.records.markdown import table
from leaderboard.columns import COLUMNS, FIXED

PROTOCOL = """
A **parameter generator** synthesises the weights of a trained network instead of training them. Here every generator
gets the same checkpoints and is scored on the real task, beside controls that need no learning at all.

1. **Collect** a zoo of K checkpoints: consecutive optimizer steps of one run in which only a subset of the weights
   moves (track *trajectory*), or K independent runs (track *seeds*). The rest is frozen, so a checkpoint is its vector.
2. **Fit** the generator on these vectors. It sees neither data nor labels; one that asks for training scores says so.
3. **Sample** new vectors, 100 by default.
4. **Select** one of them on the training split. Validation only reports.
5. **Score** originals, generated models and controls on the same validation examples, and compare.

A **board** is one zoo, scored in one way: same data, architecture, layers, checkpoints and numbers of samples and
examples. Its key is a hash of all that. Records of different boards are never ranked together.
"""

CONTROLS = """
| control | what it is |
|---|---|
| copy | a checkpoint of the zoo, drawn at random: a generator that only memorises scores like it |
| average | the mean of all checkpoints (the paper's "ensemble") |
| mean_of_two, interpolation | the mean of 2, and of 16, random checkpoints |
| step | from one random checkpoint 10 to 50 % of the way to another |
| gaussian | a normal distribution for each parameter |
| full_gaussian, low_rank_gaussian | one with the covariance of the checkpoints, and in its first 8 directions |
| noise | a checkpoint with Gaussian noise, in eight amplitudes relative to each tensor's spread |
| finetune | a few more steps of SGD from a checkpoint |
| greedy_soup | checkpoints averaged as long as the training score rises |
| shuffled | a checkpoint whose values are shuffled within each tensor |
| aligned ... | the same after the checkpoints' hidden units were permuted to match each other |
"""

SUBMIT = """
1. Run it: `python -m bench run --task cifar100 --generator my_package.module:MyGenerator --results results`.
2. Verify it yourself: `python -m bench verify results/KEY/ID.json --from-seed`.
3. Check the files: `python -m bench check results`, and pack them with their weights:
   `python -m bench export results/KEY/ID.json`.
4. Open a pull request that adds the record and its side file under `leaderboard/results/KEY/`.

A record that was not run from its named command, or whose numbers do not follow from its weights, is not listed.
"""


def numbers() -> str:
    """Return a Markdown table that says how to read each column of a board's table."""
    rows = [[column.label, column.help] for column in (*FIXED, *COLUMNS) if column.help]
    return table(["column", "how to read it"], rows, [False, False])


def page() -> None:
    """Show the page."""
    st.title("About")
    st.markdown(PROTOCOL)
    st.header("How to read each number")
    st.markdown(numbers())
    st.header("Controls")
    st.markdown(CONTROLS)
    st.header("How to submit")
    st.markdown(SUBMIT)


page()
