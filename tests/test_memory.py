"""Memory of freed tensors stays with a process that trains or detects on the CPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from singleshot import memory
from singleshot.memory import keep_freed_memory

SCRIPT = """
import resource, sys, torch
from singleshot.memory import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory(torch.device("cpu"))
x = torch.ones(1 << 24)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        x + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not hasattr(memory.ctypes.pythonapi, "mallopt"), reason="no glibc here")
def test_a_tensor_takes_the_memory_of_the_one_before_it() -> None:
    """64 MB ten times: page by page from the system each time, or none of it."""

    def page_faults(what: str) -> int:
        return int(subprocess.run([sys.executable, "-c", SCRIPT, what], capture_output=True, check=True).stdout)

    # How many there are depends on the size of the system's pages, and a few may be taken back meanwhile.
    kept, left = page_faults("keep"), page_faults("leave")
    assert 4 * kept < left


def test_elsewhere_nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not keep_freed_memory(torch.device("cuda"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory(torch.device("cpu"))
