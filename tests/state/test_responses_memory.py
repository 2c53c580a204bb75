"""What stored responses really cost, measured in a process of its own: the byte bound is a bound on memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import gc, sys
from tests.state.responses_world import World
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

bound, count, size = (int(word) for word in sys.argv[1:])
world = World(max_bytes=bound)
for _ in range(20):
    world.answered("x" * size)
for entry in list(world.store.entries):
    world.store.delete("me", entry.id)
gc.collect()
before = resident()
for _ in range(count):
    world.answered("x" * size)
gc.collect()
print(len(world.store), world.store.bytes, resident() - before)
"""


def measured(bound: int, count: int, size: int) -> tuple[int, int, int]:
    """Responses held, bytes by the gauge, bytes by the kernel."""
    script = [sys.executable, "-c", SCRIPT, str(bound), str(count), str(size)]
    words = subprocess.run(script, check=True, capture_output=True, text=True, timeout=100).stdout.split()
    held, gauge, resident = (int(word) for word in words)
    return held, gauge, resident


@pytest.mark.parametrize(("bound", "size"), [(256 << 20, 10_000), (64 << 20, 10_000), (16 << 20, 100)])
def test_10_000_stored_responses_stay_within_the_bound(bound: int, size: int) -> None:
    held, gauge, resident = measured(bound, 10_000, size)
    assert gauge <= bound
    assert resident <= bound
    assert resident <= gauge * 1.05, "the gauge tells no less than the truth"
    assert held == 10_000 or gauge > bound * 0.99, "room that is there is used"
