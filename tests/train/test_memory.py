"""Freed memory is kept: a block of the same size needs no new pages. In separate processes: it cannot be undone."""

import subprocess
import sys

FAULTS = """
import resource
import numpy as np
from train.core.memory import keep_freed_memory

kept = {call}
np.ones(10 << 20)  # 80 MB; the blocks that follow, of 64 MB, fit into what it leaves
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(8 << 20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(call=call)], capture_output=True, text=True, check=True
    ).stdout.split()
    return done[0], int(done[1])


def test_a_freed_block_is_taken_again() -> None:
    usual, kept = faults("None")[1], faults("keep_freed_memory()")
    assert kept[0] == "True"
    assert usual >= 4 * 32  # with 2 MB pages, if the kernel uses them; otherwise 16,384 per block
    assert kept[1] < usual / 10
