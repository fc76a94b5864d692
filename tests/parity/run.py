"""Honest jobs and planted faults on three bases: `python -m tests.parity.run --help`.

Prints a line for each, and ends with 1 when an honest job failed or a fault was not found.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from core.spec.parity import Parity
from tests.parity.bench import Bench, bench
from tests.parity.faults import other_template, weights_of, without
from tests.parity.jobs import FORMATS, SOURCES, STRATEGIES, Job, honest_jobs

PLANTED_IN = ("bf16", "fp32")
MODULES = {"tiny": "v_proj", "smollm2": "v_proj", "minilm": "value"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--only", choices=("honest", "planted"), help="both unless told otherwise")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    arguments = parser.parse_args()
    disable_progress_bar()
    wrong = total = 0
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder)) as jobs:
        for base in arguments.bases:
            if arguments.only != "planted":
                for job in honest_jobs(base):
                    if job.strategy not in arguments.strategies:
                        continue
                    if job.precision not in arguments.formats:
                        continue
                    began = time.monotonic()
                    parity = jobs.honest(job)
                    total += 1
                    wrong += not report(f"honest {job.name}", parity, "passed", began)
            if arguments.only != "honest":
                for name, expected, parity in planted(jobs, base, arguments.formats):
                    total += 1
                    wrong += not report(name, parity, expected, time.monotonic())
    print(f"{total} asked, {wrong} judged wrongly")
    return 1 if wrong else 0


def planted(jobs: Bench, base: str, formats: Sequence[str]) -> Iterator[tuple[str, str, Parity]]:
    """Yield a name, what has to come of it, and what came of it, for each fault on a base."""
    for precision in (each for each in PLANTED_IN if each in formats):
        job = Job(base, "lora", precision)  # type: ignore[arg-type]
        other = {
            "another seed": weights_of(jobs.bundle(job.other_seed())),
            "other data": weights_of(jobs.bundle(job.other_data())),
        }
        changes = {
            "template": other_template,
            f"no {MODULES[base]}": without(MODULES[base]),
            "no adapter": without(""),
            **other,
        }
        for name, change in changes.items():
            yield f"{name} in {job.name}", "failed", jobs.planted(job, change)
    if "fp32" not in formats:
        return
    exact = Job(base, "lora", "fp32")
    yield f"bf16 that says fp32 in {exact.name}", "failed", jobs.pretending(exact, "bf16")
    parity = jobs.honest(exact, "bf16")
    mean = parity.mean_difference_nats
    expected = "failed" if mean is not None and mean > 0.1 else "passed"
    yield f"bf16 that says so in {exact.name}", expected, parity


def report(name: str, parity: Parity, expected: str, began: float) -> bool:
    """Print what came of a job; say whether it is what was expected."""
    is_right = parity.status == expected
    print(
        f"{'ok   ' if is_right else 'WRONG'} {name:52} {parity.status:7} {parity.differs or '-':9}"
        f" mean {_nats(parity.mean_difference_nats)} of {_nats(parity.mean_allowed_nats)}"
        f" (rounding {_nats(parity.mean_rounding_nats)})"
        f" max {_nats(parity.max_difference_nats)} of {_nats(parity.max_allowed_nats)}"
        f" effect {_nats(parity.adapter_effect_nats)} share {_nats(parity.adapter_share)}"
        f" {time.monotonic() - began:.0f} s",
        flush=True,
    )
    if not is_right or (parity.reason and parity.differs in (None, "module", "adapter")):
        print(f"      {parity.reason}", flush=True)
    return is_right


def _nats(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


if __name__ == "__main__":
    sys.exit(main())
