import json
from pathlib import Path

import pytest

from bench.data import SMALL
from bench.measure import MeasuredRun, MeasuredStep, median_ratio
from bench.report import CaseReport, CurveAgreement, Figures, Report, save


@pytest.fixture
def report() -> Report:
    return Report(
        clock="wall time",
        rows_tokens=(100, 120, 140),
        size=SMALL,
        targets=180,
        steps=8,
        cases=(
            CaseReport(
                strategy="lora",
                reference="PEFT",
                flops_per_parameter=4,
                figures=(
                    Figures("Tunesmith fp32", (800.0, 400.0, 840.0), (4.0, 8.0, 4.0)),
                    Figures("Tunesmith bf16", (1200.0, 600.0, 1300.0), (3.0, 6.0, 3.0)),
                    Figures("TRL padded, fp32", (100.0, 50.0, 100.0), (30.0, 60.0, 30.0)),
                    Figures("TRL padding-free, fp32", (400.0, 200.0, 400.0), (8.0, 16.0, 8.0)),
                    Figures("TRL packed, bf16 weights", (500.0, 240.0, 500.0), (6.0, 12.0, 6.0)),
                ),
                curves=(CurveAgreement("Tunesmith fp32", "TRL padded, fp32", (1e-6, 3e-6)),),
                memory_bytes={
                    "Tunesmith fp32": 50 << 20,
                    "Tunesmith bf16": 30 << 20,
                    "TRL padded, fp32": 200 << 20,
                    "TRL padding-free, fp32": 100 << 20,
                },
            ),
        ),
        matmul_gigaflops={"bf16": 390.0, "fp32": 140.0},
    )


def test_each_precision_is_held_against_its_best_peer(report: Report) -> None:
    lines = report.cases[0].headlines(report.ceilings())
    bf16, bf16_memory, fp32, fp32_memory, curve = lines
    assert "Tunesmith bf16 is **2.50 times** the best of TRL (TRL packed, bf16 weights)" in bf16
    assert "Tunesmith fp32 is **2.00 times** the best of TRL (TRL padding-free, fp32)" in fp32
    # A packed micro-batch holds other tokens, so memory is held against the fastest that does not.
    assert "30 MiB above its base at its peak, **0.30 times** as much as TRL padding-free" in (
        bf16_memory
    )
    assert "**0.50 times** as much as TRL padding-free, fp32" in fp32_memory
    assert "max |Δ| 3.0e-06, mean |Δ| 2.0e-06" in curve


def test_every_contender_has_a_row(report: Report) -> None:
    table = report.markdown()
    assert "| TRL padded, fp32 | 3 | 100 | 0.20 | 30.0 | 200 |" in table
    assert table.count("\n| TRL ") == 3
    assert table.count("\n| Tunesmith ") == 2


def test_saved_figures_can_be_read_again(report: Report, tmp_path: Path) -> None:
    as_json, as_markdown = save(report, tmp_path / "results")
    assert json.loads(as_json.read_text())["cases"][0]["figures"][1]["tokens_per_second"] == [
        1200,
        600,
        1300,
    ]
    assert as_markdown.read_text() == report.markdown()


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was ten times slower in the second round, for both.
    assert median_ratio((300.0, 30.0, 310.0), (100.0, 10.0, 100.0)) == pytest.approx(3.0)


def test_warm_up_counts_in_the_time_and_not_in_the_rate() -> None:
    run = MeasuredRun((MeasuredStep(9.0, 100, 50, 1.0), MeasuredStep(0.5, 100, 50, 1.0)))
    assert run.steady_tokens_per_second(warm_up_steps=1) == 200.0
    assert run.seconds_to_last_step() == 9.5
