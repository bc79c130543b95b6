"""Worker processes and the process that they belong to."""

import os
import socket
import subprocess
import sys

from isthmus.studies import Local


class Where:
    """Says in whose terminal session it runs."""

    def run(self, *, device, progress):
        return os.getsid(0), os.getpgrp()


def test_ctrl_c_is_for_the_process_that_owns_the_workers():
    """A terminal sends it to a whole process group; workers that import torch at that moment would complain."""
    engine = Local(workers=1, devices=("cpu",))
    try:
        engine.submit("where", Where())
        while (found := engine.next(30)) is None or not found.over:
            pass
    finally:
        engine.close()
    assert found.outcome[0] != os.getsid(0)
    assert found.outcome[1] != os.getpgrp()


def test_a_worker_whose_owner_is_gone_ends_without_a_word():
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "isthmus.studies.factors.worker", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
    theirs.close()
    ours.close()
    _, said = process.communicate(timeout=200)
    assert (process.returncode, said) == (1, "")
