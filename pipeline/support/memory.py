"""Memory: what a process keeps for itself."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Let the process keep large blocks of memory that it has freed, instead of handing them back to the system.

    Every pass of a network through the CPU asks for the same hundreds of megabytes again. glibc would return them in
    between, and their page faults cost a sixth of the time (benchmarks/extraction.py). Elsewhere nothing changes.

    Call it before the process has threads: glibc settles the number of its arenas when the first of them allocates.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_ARENA_MAX, 1)  # a thread's own arena hands every block above 64 MiB back
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
