"""Imported first by the server that workers are forked from: neither it nor a worker
answers Ctrl-C, which is for the command that started them and ends them.

pebble has a worker ignore it as well, but only once the worker runs: one that was just
forked would print a traceback.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
