"""Training through the service, as its users get it, compared with TRL.

    python -m bench.service_training [--only lora] [--base FOLDER] [--lengths 384-1024] [--save]

Jobs are sent over HTTP to `tunesmith up`, and their speed is that of their events. A run of TRL has
a process and all cores for itself; the service waits meanwhile. On a CPU that multiplies 16 bits in
scalar loops, TRL runs in fp32 only, which is 20 times as fast there.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import transformers
from openai import OpenAI

from bench.cases import CASES, Case, TrlSetting, within_reach
from bench.data import USUAL_LENGTHS, BenchmarkData, build, build_on
from bench.measure import MeasuredRun, MeasuredStep
from bench.ours import job_spec
from bench.processes import catalog_of, require_success, service
from bench.results import save_table, set_up, table
from bench.rows import benchmark_rows
from bench.trl_peer import run_trl
from core.batching.rows import Row
from core.models.sixteen_bit_products import has_products
from core.spec.job import JobSpec
from core.spec.training import Precision

SEED = 20261123
BATCH_ROWS = 8
WARM_UP_STEPS = 2
BASE_ID = "benchmark"
EVERY_STRATEGY = "lora,qlora,full"
POLL_SECONDS = 0.5
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32")


@dataclass(frozen=True)
class Measured:
    """One contender of one strategy; medians over rounds."""

    strategy: str
    contender: str
    rounds: int
    tokens_per_second: float
    to_best_of_trl: float
    """The median over rounds of the ratio within a round; fp32 of ours to the best in fp32."""
    largest_loss_difference: str
    """To TRL padded in the same format, or in fp32 if TRL ran in no other, in nats per labelled
    token; empty for peers."""


def main() -> None:
    options = _options()
    transformers.logging.set_verbosity_error()
    cases = [CASES[name] for name in options.only.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        rows = BATCH_ROWS * options.steps
        if options.base:
            data = build_on(options.base, Path(folder), rows, SEED, options.lengths)
        else:
            data = build(Path(folder), rows, SEED, lengths=options.lengths)
        with _service(Path(folder), data) as client:
            measured = [
                each for case in cases for each in _measure(client, data, case, options.rounds)
            ]
    report = "\n".join(
        [
            *set_up(f"Training through the service, {data.size.name}"),
            *table(_heading(options), measured),
            "",
        ]
    )
    print(report)
    if options.save:
        figures = [asdict(each) for each in measured]
        variant = _variant(options, data)
        print("Saved:", *save_table("service-training", report, figures, variant=variant))


@contextmanager
def _service(folder: Path, data: BenchmarkData) -> Iterator[OpenAI]:
    catalog = catalog_of(folder, BASE_ID, data.base_folder)
    with service(folder / "service", TUNESMITH_CATALOG_FILE=catalog) as port:
        yield OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")


def _measure(client: OpenAI, data: BenchmarkData, case: Case, rounds: int) -> Iterator[Measured]:
    """Measure ours and the peers in turns; the peers far behind only once."""
    specs = {
        precision: job_spec(data, case.strategy, precision, BATCH_ROWS, SEED)
        for precision in PRECISIONS
    }
    rows = benchmark_rows(data, specs["fp32"])
    runs: dict[str, list[MeasuredRun]] = {}
    peers = [each for each in case.settings if _is_native(each)]
    for number in range(rounds):
        for precision, spec in specs.items():
            name = f"Tunesmith {precision}"
            runs.setdefault(name, []).append(_told(name, _train(client, data, spec)))
        for setting in peers:
            run = _run_trl(setting, specs["fp32"], rows)
            runs.setdefault(setting.name, []).append(_told(setting.name, run))
        if number == 0:
            kept = within_reach(peers, {name: _speed(first) for name, [first] in runs.items()})
            peers = [each for each in peers if each.name in kept]
    for name, measured in runs.items():
        is_fp32 = name.endswith("fp32")
        best = _best(case, runs, is_fp32=is_fp32 and not name.startswith("TRL"))
        ratios = [_speed(a) / _speed(b) for a, b in zip(measured, runs[best], strict=False)]
        padded = f"TRL padded, {'fp32' if is_fp32 else 'bf16 weights'}"
        padded = padded if padded in runs else "TRL padded, fp32"
        yield Measured(
            strategy=case.name,
            contender=name,
            rounds=len(measured),
            tokens_per_second=statistics.median(_speed(run) for run in measured),
            to_best_of_trl=statistics.median(ratios),
            largest_loss_difference=""
            if name.startswith("TRL")
            else f"{distance(measured[0], runs[padded][0]):.1e}",
        )


def _is_native(setting: TrlSetting) -> bool:
    """Return whether the CPU has products in the setting's format; else it takes hours."""
    return setting.precision == "fp32" or has_products(torch.device("cpu"), torch.bfloat16)


def _speed(run: MeasuredRun) -> float:
    return run.steady_tokens_per_second(WARM_UP_STEPS)


def _best(case: Case, runs: dict[str, list[MeasuredRun]], *, is_fp32: bool) -> str:
    """Return the fastest setting of TRL: of all, or of those in fp32."""
    names = [
        each.name
        for each in case.settings
        if each.name in runs and (each.precision == "fp32" or not is_fp32)
    ]
    return max(names, key=lambda name: statistics.median(_speed(run) for run in runs[name]))


def distance(ours: MeasuredRun, theirs: MeasuredRun) -> float:
    """Return the largest difference of the losses; SystemExit if the steps have other rows."""
    work = [[(step.tokens, step.targets) for step in run.steps] for run in (ours, theirs)]
    if work[0] != work[1]:
        raise SystemExit(f"The steps of TRL differ from ours: {work[1]} instead of {work[0]}")
    return max(abs(a.loss - b.loss) for a, b in zip(ours.steps, theirs.steps, strict=True))


def _told(name: str, run: MeasuredRun) -> MeasuredRun:
    print(f"{name}: {_speed(run):.0f} tokens/s", file=sys.stderr, flush=True)
    return run


def _train(client: OpenAI, data: BenchmarkData, spec: JobSpec) -> MeasuredRun:
    """Run a job over HTTP; return the steps that its events report."""
    with data.train_file.open("rb") as content:
        file = client.files.create(file=content, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=BASE_ID,
        training_file=file.id,
        seed=spec.seed,
        extra_body={
            "strategy": spec.strategy.model_dump(mode="json"),
            "training": spec.training.model_dump(mode="json", exclude_unset=True),
        },
    )
    require_success(client, job, POLL_SECONDS)
    return MeasuredRun(tuple(_steps(client, job.id)))


def _steps(client: OpenAI, job_id: str) -> list[MeasuredStep]:
    steps: dict[int, MeasuredStep] = {}
    for event in client.fine_tuning.jobs.list_events(job_id, limit=100):
        data: Any = event.data
        if event.type == "metrics" and data and "seconds" in data:
            steps[data["step"]] = MeasuredStep(
                data["seconds"], data["tokens"], data["targets"], data["train_loss"]
            )
    return [steps[number] for number in sorted(steps)]


def _run_trl(setting: TrlSetting, spec: JobSpec, rows: list[Row]) -> MeasuredRun:
    """Run TRL in a process of its own."""
    steps = len(rows) // BATCH_ROWS
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_trl_here, setting, spec, rows, steps).result()


def _trl_here(setting: TrlSetting, spec: JobSpec, rows: list[Row], steps: int) -> MeasuredRun:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return run_trl(setting, spec, rows, steps, time.perf_counter)


def _heading(options: argparse.Namespace) -> str:
    lengths = f"{options.lengths[0]} to {options.lengths[-1]} tokens"
    return f"{BATCH_ROWS} rows of {lengths} per step, {options.steps} steps"


def _variant(options: argparse.Namespace, data: BenchmarkData) -> str:
    """Return the part of the table's name that says how it differs from the usual one."""
    lengths: range = options.lengths
    parts = [data.size.name] if options.base else []
    if options.only != EVERY_STRATEGY:
        parts.append(options.only)
    if lengths != USUAL_LENGTHS:
        parts.append(f"{lengths[0]}-to-{lengths[-1]}-tokens")
    return "-".join(parts)


def _lengths(text: str) -> range:
    """Read "24-384", shortest and longest."""
    shortest, longest = map(int, text.split("-"))
    return range(shortest, longest + 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=EVERY_STRATEGY, help="strategies, comma-separated")
    parser.add_argument("--base", type=Path, help="folder of a Llama")
    parser.add_argument(
        "--lengths", type=_lengths, default=USUAL_LENGTHS, help="tokens of a row, such as 384-1024"
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repeats")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a run")
    parser.add_argument("--save", action="store_true", help="write the table into bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
