"""What tests of studies share: a small recipe, and looking at what it left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.records.record import Record
from bench.system import store

ROOT = Path(__file__).parents[1]
RECIPE = """
title = "Tiny"
fixed = { task = "tests.tiny:Tiny", k = 5, samples = 4 }
[axes]
generator = ["tests.tiny:Jitter", "average"]
seed = [0, 1]
"""
STAGES = 10  # of that: a zoo, its controls, four fits and four records


def recipe(folder, text=RECIPE, name="tiny"):
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def records(results):
    """What the records say by their commands, but for times, and what another store or machine changes."""
    found = {}
    for path in Path(results).rglob("*.json"):
        record = Record.read(path)
        data = json.loads(record.to_json())
        for part in ("timing", "created", "artifacts", "environment"):
            data.pop(part)
        found[record.command] = data
    return found


def order(stage, text=""):
    """Tell ``tests.tiny`` what to do."""
    path = store.home() / stage
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def made(stage):
    """How often a stage was made, or begun and not killed."""
    return len(list((store.home() / "made").glob(f"{stage}-*")))


def begun(path, *arguments):
    """``bench study`` in a process of its own, in a group of its own, which heeds Ctrl-C.

    Tests that a script runs in the background ignore it, and what is ignored stays so in new processes.
    """
    command = [sys.executable, "-m", "bench", "study", str(path), *map(str, arguments)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def until(condition, seconds=300.0):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def processes(group):
    """The processes of a group that are alive."""
    alive = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                alive.append(int(entry.name))
    return alive


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
