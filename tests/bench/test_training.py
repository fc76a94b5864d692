from pathlib import Path
from time import perf_counter

import pytest

from bench.data import build, build_on, size_of

SHIPPED_BASE = Path(__file__).parents[2] / "core" / "models" / "tiny"
ROWS = 24
STEPS = 3


def test_rows_for_a_given_base_are_as_long_for_its_tokenizer(tmp_path: Path) -> None:
    from bench.ours import job_spec
    from bench.rows import benchmark_rows
    from core.spec.strategy import LoraSpec

    data = build_on(SHIPPED_BASE, tmp_path, ROWS, seed=1)
    rows = benchmark_rows(data, job_spec(data, LoraSpec(), "fp32", batch_rows=4, seed=2))
    assert len(rows) == ROWS
    assert all(24 <= row.length <= 385 for row in rows)
    assert data.size == size_of(SHIPPED_BASE)
    assert data.size.name == "tiny"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of TRL and PEFT are not ours to mend
@pytest.mark.parametrize("strategy", ["lora", "qlora", "full", "bottleneck", "prefix", "prompt"])
def test_trl_does_the_very_steps_of_ours(tmp_path: Path, strategy: str) -> None:
    from bench.cases import CASES, TrlSetting
    from bench.ours import job_spec, run_ours
    from bench.rows import benchmark_rows
    from bench.trl_peer import run_trl

    data = build(tmp_path, ROWS, seed=1)
    spec = job_spec(data, CASES[strategy].strategy, "fp32", batch_rows=4, seed=2)
    rows = benchmark_rows(data, spec)

    ours = run_ours(data, spec, STEPS, perf_counter).steps
    setting = TrlSetting("padded", "fp32")
    theirs = run_trl(setting, spec, rows, STEPS, perf_counter, exact=True).steps

    assert len(ours) == len(theirs) == STEPS
    for our_step, their_step in zip(ours, theirs, strict=True):
        assert our_step.tokens == their_step.tokens
        assert our_step.targets == their_step.targets
        assert our_step.loss == pytest.approx(their_step.loss, abs=1e-4)
