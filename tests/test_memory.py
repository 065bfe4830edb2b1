import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from bench.system import memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    memory.keep_freed()
def faults():
    for _ in range(40):
        torch.ones(4_000_000)  # 16 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_memory_that_was_freed_is_used_again_without_page_faults():
    def count(mode):
        return int(subprocess.check_output([sys.executable, "-c", CODE, mode]))

    assert count("keep") < 1000


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_done(platform, monkeypatch):
    from bench.system import memory

    monkeypatch.setattr(sys, "platform", platform)
    memory.keep_freed()
