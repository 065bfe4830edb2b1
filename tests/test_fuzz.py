"""A few cases of the fuzzer (``python -m tests.fuzz`` tries any number), and what it must notice."""

import os
import signal
import time

import pytest

from bench.errors import BenchError
from tests.fuzz import engine

QUICK = ["weights", "coco"]  # the others need a finished run, or many images


def test_a_few_damaged_inputs_end_in_lines(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    result = engine.Fuzzer(tmp_path, QUICK).run(range(80), seconds=3)
    assert result.tried
    assert not result.failed


def lines(*told):
    return lambda: told


def refused():
    raise BenchError("one\nline")


def dead():
    os.kill(os.getpid(), signal.SIGKILL)


def broken():
    raise KeyError("a")


def busy():
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass


READS = [
    (refused, ""),
    (lines("one", "two"), ""),
    (lines("one\ntwo"), "no line"),
    (dead, "it ended the process (signal 9)"),
    (broken, "KeyError: 'a'"),
    (busy, "it took 0."),
    (lambda: bytearray(300 << 20) and None, "MiB"),
    (refused, ""),
]


def test_what_is_no_line_is_noticed_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "SECONDS", 0.15)
    monkeypatch.setattr(engine, "MEMORY", 200 << 20)
    monkeypatch.setitem(engine.KINDS, "made", 1)
    monkeypatch.setattr(engine, "prepared", lambda folder, kinds: {"made": None})
    monkeypatch.setattr(engine.Fuzzer, "_write", lambda self, number: READS[number][0])
    result = engine.Fuzzer(tmp_path, ["made"]).run(range(len(READS)))
    assert result.tried["made"] == len(READS)
    for number, (_, expected) in enumerate(READS):
        assert (number, "made") in result.failed or not expected
        assert expected in result.failed.get((number, "made"), "")
        assert expected or (number, "made") not in result.failed


def test_the_same_case_is_the_same_input(tmp_path):
    made = engine.Fuzzer(tmp_path, ["weights"], seed=3)
    contents = []
    for _ in range(2):
        made._write(7)
        contents.append({p.name: p.read_bytes() for p in (tmp_path / "case").iterdir()})
    assert contents[0] == contents[1]
    assert contents[0]


def test_a_case_that_cannot_be_made_ends_the_fuzzer(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.Fuzzer, "_write", lambda self, number: 1 / 0)
    with pytest.raises(RuntimeError, match="case 0 could not be made"):
        engine.Fuzzer(tmp_path, ["weights"]).run(range(3))
