"""Counts the memory of cases on the pretend device, as JSON; a process of its own.

python -m tests.pretend_cuda.count quick|every|unseen [NAME]
"""

from tests.pretend_cuda.device import PretendCuda

# ruff: noqa: I001
import json
import sys
import warnings
from dataclasses import asdict

import torch

from tests.pretend_cuda.cases import EVERY, QUICK, Case
from tests.pretend_cuda.unseen import UNSEEN
from tests.pretend_cuda.training import Counted, count_step, on_device, rows_of


def count(case: Case) -> Counted:
    """Return the memory of a step."""
    with PretendCuda() as device:
        job = on_device(case.spec, case.config)
        return count_step(device, job, rows_of(case.spec, list(case.lengths), case.labelled))


def main() -> None:
    warnings.simplefilter("ignore")  # of transformers, about weights without values
    torch.set_num_threads(1)
    which, *names = sys.argv[1:]
    cases = {"quick": QUICK, "every": EVERY, "unseen": UNSEEN}[which]
    found = {name: asdict(count(cases[name])) for name in names or cases}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
