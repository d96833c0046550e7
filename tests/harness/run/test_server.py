"""The server that workers are forked from."""

import os
import signal

from harness.run.server.pool import CONTEXT, start_server


def interrupted(pipe):
    """Tell who handles Ctrl-C, and that it changes nothing."""
    handler = signal.getsignal(signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    pipe.send(handler)


def test_a_worker_does_not_answer_ctrl_c_from_its_first_moment_on():
    start_server()
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=interrupted, args=(theirs,))
    process.start()
    assert ours.poll(60) and ours.recv() == signal.SIG_IGN
    process.join()
    assert process.exitcode == 0
