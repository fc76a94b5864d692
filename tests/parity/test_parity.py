"""No honest job is refused, and every planted fault is found.

On the tiny base at once; on real ones, in all formats and with all strategies, in the slow part,
which `python -m tests.parity.run` prints as a table.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.parity.bench import Bench, bench
from tests.parity.faults import other_template, weights_of, without
from tests.parity.jobs import SOURCES, Job, honest_jobs
from tests.parity.run import MODULES, planted

FAST = (Job("tiny", "lora", "bf16"), Job("tiny", "prompt", "bf16"), Job("tiny", "lora", "fp32"))
LORA = FAST[0]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("parity")) as jobs:
        yield jobs


def need(base: str) -> None:
    if not SOURCES[base].exists():
        pytest.skip(f"{SOURCES[base]} is missing")


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(job, id=job.name, marks=() if job in FAST else pytest.mark.slow)
        for base in SOURCES
        for job in honest_jobs(base)
    ],
)
def test_honest_job_passes(jobs: Bench, job: Job) -> None:
    need(job.base)
    parity = jobs.honest(job)
    assert parity.status == "passed", parity.reason


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (other_template, {"template"}),
        (without(MODULES["tiny"]), {"module"}),
        (without(""), {"module"}),
    ],
)
def test_planted_fault_is_found_in_bf16_and_named(
    jobs: Bench, change: Callable[..., None], differs: set[str]
) -> None:
    parity = jobs.planted(LORA, change)
    assert (parity.status, parity.differs) == ("failed", *differs), parity.reason


@pytest.mark.parametrize("other", [LORA.other_seed(), LORA.other_data()])
def test_another_adapter_is_found_in_bf16(jobs: Bench, other: Job) -> None:
    parity = jobs.planted(LORA, weights_of(jobs.bundle(other)))
    assert parity.status == "failed"
    assert parity.differs in ("adapter", "numbers"), parity.reason


def test_other_precision_than_the_engine_says_is_found(jobs: Bench) -> None:
    parity = jobs.pretending(Job("tiny", "lora", "fp32"), "bf16")
    assert (parity.status, parity.differs) == ("failed", "precision"), parity.reason


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("base", SOURCES)
def test_every_fault_is_found_in_every_format(base: str, tmp_path_factory) -> None:
    need(base)
    with bench(tmp_path_factory.mktemp("faults")) as jobs:
        for name, expected, parity in planted(jobs, base, ("bf16", "fp32")):
            assert parity.status == expected, f"{name}: {parity.reason}"
