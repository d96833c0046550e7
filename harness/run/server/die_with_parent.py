"""Imported by the server that workers are forked from, where whoever started it may be
killed: it and its workers then end at once.

Ray kills its worker processes with SIGKILL (a lost node, too little memory), which
would leave a point running on the device for as long as it takes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2), Linux


def _follow() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if sys.platform == "linux":
    _follow()
    os.register_at_fork(after_in_child=_follow)  # a child does not inherit it
