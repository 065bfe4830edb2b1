"""Try mutated inputs of every kind, each in a process that may crash, and tell what is not one line of error.

A case fails where reading its input raises anything but ``BenchError``, tells more than a line, ends the process, or
takes more than 5 seconds or 1 GiB beside what the process had. ``--first NUMBER --cases 1`` tries one again.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch

from tests.fuzz.engine import Fuzzer
from tests.fuzz.readers import KINDS


def main() -> int:
    """Try as many cases as the command line says; return 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--cases", type=int, help="how many inputs to try; default: those of 15 seconds"
    )
    parser.add_argument("--seconds", type=float, help="after which no further one is tried")
    parser.add_argument("--seed", type=int, default=0, help="of all cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--folder", type=Path, help="where the input of the last case stays")
    chosen = parser.parse_args()
    torch.set_num_threads(
        1
    )  # cases are forked, and a fork of a process with a pool of threads waits for them for ever
    seconds = chosen.seconds or (0.0 if chosen.cases else 15.0)
    numbers = range(chosen.first, chosen.first + (chosen.cases or sys.maxsize // 2))
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        os.environ["BENCH_HOME"] = str(folder / "home")
        result = Fuzzer(folder, chosen.kinds, chosen.seed).run(numbers, seconds=seconds)
    told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(result.tried.items()))
    print(f"{result.tried.total():,} cases ({told}), {len(result.failed):,} failed")
    return int(bool(result.failed))


if __name__ == "__main__":
    sys.exit(main())
