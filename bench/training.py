"""Training on a CPU, compared with TRL and PEFT in one run, as ratios.

    python -m bench.training [--only lora,full] [--vocabulary 151936] [--base FOLDER] [--rounds N]
                             [--save]

See bench/README.md for what is compared and how to read the tables.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import datasets
import torch
import transformers

from bench.cases import CASES, Case, TrlSetting, within_reach
from bench.data import SMALL, BenchmarkData, ModelSize, build, build_on
from bench.measure import Clock, MeasuredRun, matmul_gigaflops
from bench.memory import MemoryCase, peak_bytes_above_base
from bench.ours import job_spec, run_ours
from bench.report import CaseReport, CurveAgreement, Figures, Report, save
from bench.rows import benchmark_rows
from bench.trl_peer import run_trl
from core.batching.rows import Row
from core.spec.training import Precision

SEED = 20261123
BATCH_ROWS = 8
CURVE_BATCH_ROWS = 2
"""Rows per step of the loss curves, which compare losses and not speed."""
WARM_UP_STEPS = 2
_PADDED: dict[Precision, TrlSetting] = {
    "bf16": TrlSetting("padded", "bf16 weights"),
    "fp32": TrlSetting("padded", "fp32"),
}
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True)
class Plan:
    """How much to measure; rounds are interleaved, so that conditions are equal."""

    rounds: int = 3
    steps: int = 8
    curve_steps: int = 50
    memory: bool = True
    precisions: tuple[Precision, ...] = ("bf16", "fp32")


@dataclass(frozen=True)
class Contender:
    name: str
    run: Callable[[int], MeasuredRun]
    """Maps a number of steps to a run of the first steps."""
    same_steps: bool
    """Whether each step must have the same rows as ours."""


def main() -> None:
    options = _options()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(1 if options.busy else options.threads)
    clock: Clock = time.process_time if options.busy else time.perf_counter
    plan = Plan(options.rounds, options.steps, options.curve_steps, not options.no_memory)
    cases = [CASES[name] for name in options.only.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        rows_needed = max(CURVE_BATCH_ROWS * plan.curve_steps, BATCH_ROWS * (plan.steps + 4))
        if options.base:
            data = build_on(options.base, Path(folder), rows_needed, SEED)
        else:
            data = build(Path(folder), rows_needed, SEED, _size(options.vocabulary))
        report = measure(data, cases, plan, clock)
    print(report.markdown())
    if options.save:
        print("Saved:", *save(report))


def measure(data: BenchmarkData, cases: list[Case], plan: Plan, clock: Clock) -> Report:
    """Measure the machine's peak, then all cases."""
    size = data.size
    rows = benchmark_rows(data, job_spec(data, cases[0].strategy, "fp32", BATCH_ROWS, SEED))
    peaks: dict[str, float] = {
        precision: matmul_gigaflops(
            getattr(torch, DTYPES[precision]),
            clock,
            (880, size.hidden_size, size.intermediate_size),
        )
        for precision in plan.precisions
    }
    return Report(
        clock="CPU time" if clock is time.process_time else "wall time",
        size=size,
        rows_tokens=tuple(row.length for row in rows),
        targets=sum(row.targets for row in rows),
        steps=plan.steps,
        cases=tuple(_measure_case(data, case, rows, plan, clock) for case in cases),
        matmul_gigaflops=peaks,
    )


def _measure_case(
    data: BenchmarkData, case: Case, rows: list[Row], plan: Plan, clock: Clock
) -> CaseReport:
    """Compare the loss curves with TRL's, then measure all contenders in interleaved rounds."""
    specs = {
        precision: job_spec(data, case.strategy, precision, BATCH_ROWS, SEED)
        for precision in plan.precisions
    }
    ours = [
        Contender(f"Tunesmith {name}", partial(run_ours, data, spec, clock=clock), True)
        for name, spec in specs.items()
    ]
    peers = [
        Contender(
            setting.name,
            partial(run_trl, setting, specs[plan.precisions[0]], rows, clock=clock),
            setting.same_steps,
        )
        for setting in case.settings
    ]
    curves = [
        _agreement(data, case, precision, rows, plan.curve_steps)
        for precision in plan.precisions
        if plan.curve_steps
    ]
    figures = _interleaved(ours, peers, plan) if plan.rounds else ()
    memory: dict[str, int] = {}
    if plan.rounds and plan.memory:
        finalists = within_reach(peers, {each.name: each.tokens_per_second[0] for each in figures})
        threads = torch.get_num_threads()
        settings: list[tuple[str, Precision, TrlSetting | None]] = [
            *((us.name, name, None) for us, name in zip(ours, plan.precisions, strict=True)),
            *(
                (setting.name, plan.precisions[0], setting)
                for setting in case.settings
                if setting.name in finalists and setting.same_steps
            ),
        ]
        for name, precision, setting in settings:
            print(f"memory: {case.name}: {name}", file=sys.stderr, flush=True)
            memory[name] = peak_bytes_above_base(
                MemoryCase(data, specs[precision], setting, threads)
            )
    return CaseReport(
        case.name, case.reference, case.flops_per_parameter, figures, tuple(curves), memory
    )


def _interleaved(ours: list[Contender], peers: list[Contender], plan: Plan) -> tuple[Figures, ...]:
    """Run all contenders in the first round, then ours and the peers of similar speed."""
    contenders = [*ours, *peers]
    runs: dict[str, list[MeasuredRun]] = {
        each.name: [_run(each, plan.steps, "round 1")] for each in contenders
    }
    reference = runs[ours[0].name][0]
    for each in contenders:
        if each.same_steps:
            _require_same_work(each.name, runs[each.name][0], reference)
    finalists = within_reach(peers, {name: _speed(first) for name, [first] in runs.items()})
    again = [*ours, *(peer for peer in peers if peer.name in finalists)]
    for number in range(1, plan.rounds):
        # Reverse every other round, so that no contender is always first or last.
        for each in again[:: -1 if number % 2 else 1]:
            runs[each.name].append(_run(each, plan.steps, f"round {number + 1}"))
    return tuple(
        Figures(
            name,
            tuple(_speed(run) for run in measured),
            tuple(run.seconds_to_last_step() for run in measured),
        )
        for name, measured in runs.items()
    )


def _speed(run: MeasuredRun) -> float:
    return run.steady_tokens_per_second(WARM_UP_STEPS)


def _agreement(
    data: BenchmarkData, case: Case, precision: Precision, rows: list[Row], steps: int
) -> CurveAgreement:
    """Return the distance between our losses and those of TRL padded, by step."""
    spec = job_spec(data, case.strategy, precision, CURVE_BATCH_ROWS, SEED)
    ours = Contender(
        f"Tunesmith {precision}", partial(run_ours, data, spec, clock=time.perf_counter), True
    )
    run_peer = partial(run_trl, _PADDED[precision], spec, rows, clock=time.perf_counter, exact=True)
    peer = Contender("TRL padded", run_peer, True)
    our_run = _run(ours, steps, "loss curve")
    peer_run = _run(peer, steps, "loss curve")
    _require_same_work(peer.name, peer_run, our_run)
    distances = [
        abs(ours.loss - theirs.loss)
        for ours, theirs in zip(our_run.steps, peer_run.steps, strict=True)
    ]
    return CurveAgreement(ours.name, peer.name, tuple(distances))


def _run(contender: Contender, steps: int, occasion: str) -> MeasuredRun:
    print(f"{occasion}: {contender.name}", file=sys.stderr, flush=True)
    return contender.run(steps)


def _require_same_work(name: str, run: MeasuredRun, reference: MeasuredRun) -> None:
    work = [(step.tokens, step.targets) for step in run.steps]
    expected = [(step.tokens, step.targets) for step in reference.steps]
    if work != expected:
        raise SystemExit(f"The steps of {name} differ from ours: {work} instead of {expected}")


def _size(vocabulary: int) -> ModelSize:
    if vocabulary == SMALL.vocabulary:
        return SMALL
    return replace(SMALL, name=f"{SMALL.name} vocabulary {vocabulary}", vocabulary=vocabulary)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(CASES), help="strategies, comma-separated")
    parser.add_argument(
        "--vocabulary", type=int, default=SMALL.vocabulary, help="size of the vocabulary"
    )
    parser.add_argument(
        "--base", type=Path, help="folder of a Llama, instead of one with random weights"
    )
    parser.add_argument(
        "--busy",
        action="store_true",
        help="one thread and CPU time, for a shared machine",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="interleaved repeats; 0: only loss curves"
    )
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps of a measured run")
    parser.add_argument(
        "--curve-steps", type=int, default=50, help="steps of the compared loss curves; 0: none"
    )
    parser.add_argument("--no-memory", action="store_true", help="skip the memory runs")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch on both sides")
    parser.add_argument("--save", action="store_true", help="write the tables into bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
