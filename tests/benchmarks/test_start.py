"""Starting the command line."""

import subprocess
import sys


def test_cli_start(versus, short):
    """``python -m bench --help`` against ``import torch``, which it must not do."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout

    def agree(ours, plain):
        assert "Commands" in ours
        assert plain == ""

    versus(
        lambda: run("-m", "bench", "--help"),
        lambda: run("-c", "import torch"),
        agree,
        rounds=3 if short else 7,
    )
