"""The work of one stage of a study, in its own process, by the functions of the pipeline."""

import contextlib
import dataclasses
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from bench.errors import BenchError
from bench.study.executor import Outcome, State
from bench.study.graph import Node
from bench.system import store
from bench.system.progress import say


def carry_out(node: Node) -> Outcome:
    """Carry out a stage; return its outcome, also when it fails."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(node.needs.cpus)
    threadpool_limits(node.needs.cpus)  # for all other libraries
    began = time.monotonic()
    try:
        say(node.label)
        with store.watched() as made:
            files = _do(node)
    except Exception as error:
        with contextlib.suppress(OSError):  # the log may lie on the disk that is full
            traceback.print_exc()
        text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        return Outcome("failed", time.monotonic() - began, error=" ".join(text.split()))
    state: State = "done" if made or files else "cached"
    written = sum(path.stat().st_size for path in made if path.exists())
    return Outcome(state, time.monotonic() - began, written, files=files)


def _do(node: Node) -> dict[str, bytes]:
    """Carry out a stage; return the files that it made outside of the store, by relative path."""
    from bench.judge.population import ORIGINAL
    from bench.runs.pipeline import Run

    if node.kind == "record":
        return _record(node)
    run = Run(node.request)
    if node.kind == "base":
        run.prepare()
        return {}
    zoo, _ = run.zoo()
    if node.kind == "controls":
        run.evaluate(zoo, zoo.vectors, ORIGINAL)
        run.score_controls(zoo)
    elif node.kind == "fit":
        for count in node.samples:
            run.generate(zoo, count)
    return {}


def _record(node: Node) -> dict[str, bytes]:
    """Make a record; return its file and its side file, which the driver, maybe on another machine, writes."""
    from bench.runs.pipeline import Run

    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        _, path = Run(dataclasses.replace(node.request, results=results)).execute()
        files = (path, path.with_suffix(".npz"))
        return {file.relative_to(results).as_posix(): file.read_bytes() for file in files}


def print_to(path: Path) -> None:
    """Redirect all output of this process to a file, from now on."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
