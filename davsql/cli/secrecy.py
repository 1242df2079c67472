"""A process that holds passwords keeps its memory to itself."""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_DUMPABLE = 4  # prctl(2)


def keep_memory_private() -> None:
    """No core dump of this process, and none who runs as the same user may read its memory (Linux); root may.

    A limit of 0 is not enough: it does not hold where the kernel hands dumps to a program (core(5)).
    """
    if os.name == "nt":
        return
    import resource  # noqa: PLC0415  # not on Windows

    # The hard limit counts for nobody here; a process could not raise it again for a child that may dump.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
