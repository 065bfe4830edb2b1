"""Ten thousand records: reading them, and drawing a page again after another board was chosen."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from leaderboard import app, load, shared
from tests.records import CONTROLS, content, outcomes, parsed, population, written

GENERATORS, SEEDS = 10, 10


@pytest.fixture(scope="module")
def records(request, tmp_path_factory):
    """A folder of made records of the usual size: tasks of ten generators with ten seeds each."""
    folder = tmp_path_factory.mktemp("records")
    count = 10 if request.config.getoption("--short") else 100
    rng = np.random.default_rng(0)
    noise = [{"amplitude": a, **several(rng, 25)} for a in (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)]
    alike = {"original": 0.8, "original_max": 0.9, "within": None}
    names = (*CONTROLS, *(f"noise {level['amplitude']:g}" for level in noise))
    fields = {
        "zoo__k": 200, "protocol__samples": 100, "scores__original": several(rng, 200), "scores__noise": noise,
        "similarity__controls": dict.fromkeys(names, alike),
        **{f"scores__{name}": several(rng, 100) for name in CONTROLS},
        "scores__average": population(0.93),
    }  # fmt: skip
    for task in range(count):
        for index in range(GENERATORS * SEEDS):
            made = content(
                **fields,
                id=f"{task:08x}{index:08x}",
                key=f"{task:016x}",
                zoo__hash=f"{task:064x}",
                task__name=f"task-{task:03}",
                generator__name=f"generator-{index // SEEDS}",
                protocol__seed=index % SEEDS,
                scores__generated=several(rng, 100),
            )
            one = parsed(made)
            # Those that the page shows have a side file; it reads no other.
            right = rng.random(797) < 0.9
            written(folder, one, outcomes(one, right) if task < 2 else None)
    return folder


def several(rng, count):
    return population(*rng.uniform(0.9, 0.95, count).tolist())


def test_leaderboard_load(versus, short, records):
    """Reading and validating every record, against pandas' own way without any validation."""

    def plain():
        texts = (path.read_bytes() for path in sorted(records.rglob("*.json")))
        return pd.json_normalize([json.loads(text) for text in texts])

    def agree(ours, theirs):
        frame, broken = ours
        assert not broken
        assert sorted(frame["generated_mean"]) == sorted(theirs["populations.generated.mean"])

    versus(lambda: load.load([records]), plain, agree, rounds=7 if short else 3)


def test_leaderboard_redraw(versus, short, records, tmp_path):
    """Another board is chosen, against opening the page anew without what is cached."""
    before = sys.argv, shared.SHIPPED
    sys.argv, shared.SHIPPED = ["app.py", str(records)], Path(tmp_path, "none")
    try:
        page = AppTest.from_file(app.__file__, default_timeout=120)
        page.switch_page("views/board.py").run()
        names = [f"{0:016x}", f"{1:016x}"]

        def table(of):
            return next(one.proto.body for one in of.get("html") if "<table>" in one.proto.body)

        def choose(name):
            return table(page.selectbox[0].set_value(name).run())

        def ours():
            names.reverse()
            return choose(names[0])

        def plain():
            shared._load.clear()
            fresh = AppTest.from_file(app.__file__, default_timeout=120)
            fresh.query_params["board"] = names[1]
            return table(fresh.switch_page("views/board.py").run())

        def agree(ours, theirs):
            assert ours.count("<tr") == theirs.count("<tr") > GENERATORS

        choose(names[0])  # each board's ties are computed once
        versus(ours, plain, agree, rounds=7 if short else 3)
    finally:
        sys.argv, shared.SHIPPED = before
