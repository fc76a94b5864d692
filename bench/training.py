"""Training throughput on a CPU: a job of ours beside TRL + PEFT, in one run, as ratios.

    python -m bench.training [--quick] [--busy] [--save]

See bench/README.md for what is compared and how to read the table.
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

from bench.data import BenchmarkData, build
from bench.measure import Clock, MeasuredRun, matmul_gigaflops
from bench.ours import job_spec, run_ours
from bench.report import CurveAgreement, Figures, Report, save
from bench.trl_peer import ALL_SETTINGS, TrlSetting, run_trl
from core.batching.rows import Row
from core.models.load import load_config, load_tokenizer
from core.objectives.supervised import Supervised
from core.training.data import load_rows

SEED = 20261123
BATCH_ROWS = 8
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Plan:
    """How much to measure; the rounds are interleaved, so that all see the same machine."""

    rounds: int
    steps: int
    curve_steps: int
    settings: tuple[TrlSetting, ...]


FULL = Plan(rounds=3, steps=8, curve_steps=50, settings=ALL_SETTINGS)
QUICK = Plan(
    rounds=1,
    steps=4,
    curve_steps=4,
    settings=(
        TrlSetting("padded", "fp32"),
        TrlSetting("padding-free", "fp32"),
        TrlSetting("padding-free", "bf16 autocast"),
    ),
)


@dataclass(frozen=True)
class Contender:
    name: str
    run: Callable[[int], MeasuredRun]
    """From a number of steps to the run of the first so many."""
    same_steps: bool
    """Whether each step must hold the very rows of ours."""


def main() -> None:
    options = _options()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(1 if options.busy else options.threads)
    clock: Clock = time.process_time if options.busy else time.perf_counter
    plan = QUICK if options.quick else replace(FULL, rounds=options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        rows_needed = BATCH_ROWS * max(plan.curve_steps, plan.steps + 4)
        report = measure(build(Path(folder), rows_needed, SEED), plan, clock)
    print(report.markdown())
    if options.save:
        print("Saved:", *save(report, Path(__file__).parent / "results"))


def measure(data: BenchmarkData, plan: Plan, clock: Clock) -> Report:
    """Hold the loss curves against TRL's, then measure every contender in interleaved rounds."""
    spec = job_spec(data, "fp32", BATCH_ROWS, SEED)
    tokenizer, config = load_tokenizer(spec.base), load_config(spec.base)
    rows = load_rows(data.train_file, "training_file", Supervised(tokenizer), config, spec.training)
    ours = {
        precision: Contender(
            f"Tunesmith {precision}",
            partial(run_ours, data, job_spec(data, precision, BATCH_ROWS, SEED), clock=clock),
            same_steps=True,
        )
        for precision in ("fp32", "bf16")
    }
    peers = [
        Contender(
            setting.name,
            partial(run_trl, setting, spec, rows, clock=clock),
            same_steps=setting.layout != "packed",
        )
        for setting in plan.settings
    ]
    curves = [
        _agreement(ours["fp32"], TrlSetting("padded", "fp32"), data, rows, plan, clock),
        _agreement(ours["bf16"], TrlSetting("padded", "bf16 weights"), data, rows, plan, clock),
    ]
    return Report(
        clock="CPU time" if clock is time.process_time else "wall time",
        rows_tokens=tuple(len(row.tokens) for row in rows),
        targets=sum(row.targets for row in rows),
        steps=plan.steps,
        figures=_interleaved([*ours.values(), *peers], plan),
        curves=tuple(curves),
        matmul_gigaflops=_matmul_peaks(clock),
    )


def _interleaved(contenders: list[Contender], plan: Plan) -> tuple[Figures, ...]:
    runs: dict[str, list[MeasuredRun]] = {contender.name: [] for contender in contenders}
    for number in range(plan.rounds):
        # Every other round backwards, so that nobody is always first or always last.
        for contender in contenders[:: -1 if number % 2 else 1]:
            runs[contender.name].append(_run(contender, plan.steps, f"round {number + 1}"))
    reference = runs[contenders[0].name][0]
    for contender in contenders:
        if contender.same_steps:
            _require_same_work(contender.name, runs[contender.name][0], reference)
    return tuple(
        Figures(
            name,
            tuple(run.steady_tokens_per_second(WARM_UP_STEPS) for run in measured),
            tuple(run.seconds_to_last_step() for run in measured),
        )
        for name, measured in runs.items()
    )


def _agreement(
    contender: Contender,
    setting: TrlSetting,
    data: BenchmarkData,
    rows: list[Row],
    plan: Plan,
    clock: Clock,
) -> CurveAgreement:
    """The distance between our losses and those of TRL padded, step by step."""
    spec = job_spec(data, "fp32", BATCH_ROWS, SEED)
    peer = Contender(setting.name, partial(run_trl, setting, spec, rows, clock=clock), True)
    our_run = _run(contender, plan.curve_steps, "loss curve")
    peer_run = _run(peer, plan.curve_steps, "loss curve")
    _require_same_work(peer.name, peer_run, our_run)
    distances = [
        abs(ours.loss - theirs.loss)
        for ours, theirs in zip(our_run.steps, peer_run.steps, strict=True)
    ]
    return CurveAgreement(contender.name, peer.name, tuple(distances))


def _run(contender: Contender, steps: int, occasion: str) -> MeasuredRun:
    print(f"{occasion}: {contender.name}", file=sys.stderr, flush=True)
    return contender.run(steps)


def _require_same_work(name: str, run: MeasuredRun, reference: MeasuredRun) -> None:
    work = [(step.tokens, step.targets) for step in run.steps]
    expected = [(step.tokens, step.targets) for step in reference.steps]
    if work != expected:
        raise SystemExit(f"{name} did other steps than we: {work} instead of {expected}")


def _matmul_peaks(clock: Clock) -> dict[str, float]:
    return {
        "fp32": matmul_gigaflops(torch.float32, clock),
        "bf16": matmul_gigaflops(torch.bfloat16, clock),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures mean little")
    parser.add_argument(
        "--busy",
        action="store_true",
        help="one thread and CPU time, for a machine that others use meanwhile",
    )
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="interleaved repeats")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch on both sides")
    parser.add_argument("--save", action="store_true", help="write the table into bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
