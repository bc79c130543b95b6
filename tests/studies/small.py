"""A study of seconds, and the processes that run it for tests that kill them."""

import os
import random
import signal
from pathlib import Path

import torch

from isthmus.studies import Here, Store, Study, parse_design, run_study

DESIGN = {
    "name": "small",
    "recipe": {"network": "mlp-8x1", "steps": 6, "batch_size": 40, "subset": 200, "momentum": 0.0},
    "factors": {"rate": [0.05, 0.5]},
    "replicates": {"count": 2, "members": 2, "differ": ["order"]},
    "measures": {"columns": ["error_barrier", "overlap", "parameters"], "points": 3, "examples": 50},
    "engine": "sequential",
    "together": 2,
}


def study(**changes):
    return Study.of(parse_design({**DESIGN, **changes}))


def table_of(path, **changes):
    return study(**changes).table(Store.open(path)).to_dict()


def run(path, changes=None):
    """Run the study to its end, in a process of its own."""
    torch.set_num_threads(1)
    run_study(study(**(changes or {})), Store.open(path, create=True), engine=Here())


def run_and_die(path, seed):
    """Run the study, but be killed before or after one of the next steps that make something durable."""
    torch.set_num_threads(1)
    left = [random.Random(seed).randint(1, 20)]
    for module, name in ((os, "fsync"), (os, "pwrite"), (Path, "replace"), (Path, "rename"), (Path, "write_text")):
        setattr(module, name, _deadly(getattr(module, name), left))
    run(path)


def _deadly(function, left):
    def called(*arguments, **keywords):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **keywords)
        if left[0] == 1 and random.random() < 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return called
