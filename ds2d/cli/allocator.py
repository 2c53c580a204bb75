"""The C library's allocator, told to keep what it has.

Rule: only glibc is told, and only at the start; elsewhere nothing happens.
Surprise: as it comes, glibc gives the pages of every large body back to the system when the request is over and asks for them
again at the next: page faults, which cost more than all that is done with the body.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""mallopt(3)."""

KEPT = 128 * 1024 * 1024
"""Bytes at the end of the heap that are kept though they are free: with half of that, eight questions of a megabyte at once
faulted a hundred pages each."""

IN_HEAP = 32 * 1024 * 1024
"""Bytes up to which a block comes from the heap: the most that glibc takes on 64 bits."""

PAD = 1024 * 1024
"""Bytes asked for beyond what is needed now."""


def keep_memory() -> None:
    """Raise the three thresholds."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((M_MMAP_THRESHOLD, IN_HEAP), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, PAD)):
            mallopt(option, value)
