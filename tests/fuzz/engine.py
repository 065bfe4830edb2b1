"""Tries cases one after the other, each in a process that may crash, and tells which failed and why."""

import collections
import dataclasses
import os
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from bench.errors import BenchError, unexpected
from tests.fuzz.readers import KINDS, Read, Writer, prepared

SECONDS, MEMORY = 5.0, 1 << 30  # of a processor, and bytes, that one case may take
BATCH = 500  # cases of one process
PATIENCE = 60.0  # seconds until a case that does not end is killed


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of some cases.

    Attributes:
        tried: number of cases by kind.
        failed: the problem of every case that failed, by its number and kind.
    """

    tried: collections.Counter[str]
    failed: dict[tuple[int, str], str]


class Fuzzer:
    """Cases by number: the same number, seed and kinds give the same input.

    Args:
        folder: where inputs are written.
        kinds: names in ``KINDS``.
        seed: of all cases.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], seed: int = 0) -> None:
        self._place, self._seed = folder / "case", seed
        self._writers = prepared(folder / "seeds", kinds)
        self._drawn = [kind for kind in kinds for _ in range(KINDS[kind])]

    def run(self, numbers: range, *, seconds: float = 0.0) -> Result:
        """Try cases by number, until they or the seconds are over.

        Args:
            numbers: the cases.
            seconds: after which no further case is begun; 0 for never.
        """
        until = time.monotonic() + seconds if seconds else float("inf")
        result = Result(collections.Counter(), {})
        while numbers and time.monotonic() < until:
            batch, done = numbers[:BATCH], 0
            for number, problem in self._in_process(batch, until):
                kind, done = self._kind(number), done + 1
                result.tried[kind] += 1
                if problem:
                    result.failed[number, kind] = problem
                    print(f"FAILED case {number} ({kind}): {problem}", flush=True)
            numbers = numbers[done:]
            print(f"{result.tried.total():,} cases", file=sys.stderr, flush=True)
        return result

    def _kind(self, number: int) -> str:
        return random.Random(f"{self._seed} {number} kind").choice(self._drawn)

    def _write(self, number: int) -> Read:
        """Write the input of a case in the place of the one before; return what reads it."""
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir(parents=True)
        write: Writer = self._writers[self._kind(number)]
        return write(random.Random(f"{self._seed} {number}"), self._place)

    def _in_process(self, batch: range, until: float) -> Iterator[tuple[int, str]]:
        """Yield the cases of a batch with their problems; the last one may have ended their process."""
        mine, theirs = Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            mine.close()
            self._serve(batch, until, theirs)
        theirs.close()
        try:
            for number in batch:
                if not mine.poll(PATIENCE):
                    os.kill(child, signal.SIGKILL)
                    yield number, f"it did not end within {PATIENCE:.0f} s"
                    return
                yield number, mine.recv()
        except EOFError:
            _, status = os.waitpid(child, 0)
            child = 0
            if os.WIFSIGNALED(status):
                yield number, f"it ended the process (signal {os.WTERMSIG(status)})"
            elif time.monotonic() < until:
                raise RuntimeError(f"case {number} could not be made, see above") from None
        finally:
            mine.close()
            if child:
                os.waitpid(child, 0)

    def _serve(self, batch: range, until: float, answer: Connection) -> None:
        """Try the cases of a batch in this process, send the problem of each (none is empty), and end the process."""
        warnings.simplefilter("ignore")
        terminal = os.dup(2)
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # notes on progress
            for number in batch:
                if time.monotonic() > until:
                    break
                answer.send(_problem(self._write(number)))
        except BaseException:
            os.dup2(terminal, 2)
            traceback.print_exc()
        finally:
            os._exit(0)


def _problem(read: Read) -> str:
    """Read one input; return what is wrong about how that ends, or nothing."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts anew
    before, start = _memory("VmRSS"), time.process_time()  # others may use the machine too
    problems = [_told(read)]
    seconds, grown = time.process_time() - start, _memory("VmHWM") - before
    if seconds > SECONDS:
        problems.append(f"it took {seconds:.1f} s")
    if grown > MEMORY:
        problems.append(f"it took {grown >> 20:,} MiB")
    return ", ".join(filter(None, problems))


def _told(read: Read) -> str:
    """Read one input; return the error that it ends in, or the first text that is no line, or nothing."""
    try:
        lines = list(read() or ())
    except BenchError as error:
        lines = [str(error)]
    except Exception as error:
        return unexpected(error)
    return next((f"no line: {one[:300]!a}" for one in lines if "\n" in one), "")


def _memory(name: str) -> int:
    """Return a number of bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(one.split()[1] for one in lines if one.startswith(name)))
