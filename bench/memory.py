"""Peak memory of a run above its base's weights, each run in a separate process.

On a CPU: Linux keeps the highest resident size of a process and lets it be set back. What is
counted is that peak minus the resident size after all imports. On a CUDA device it is the peak of
the allocator. In both cases the bytes of the base's weights, as this side holds them, are taken
off. So activations, gradients, optimizer, copies of weights and the logits of the head count, on
both sides alike.
"""

import ctypes
import gc
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import datasets
import torch
import transformers

from bench.cases import TrlPrecision, TrlSetting
from bench.data import BenchmarkData
from bench.measure import MeasuredRun
from bench.ours import run_ours
from bench.rows import benchmark_rows
from bench.trl_peer import load_peer_base, run_trl
from core.spec.job import JobSpec

MEMORY_STEPS = 3


@dataclass(frozen=True)
class MemoryCase:
    """One run to measure: ours if `setting` is None."""

    data: BenchmarkData
    spec: JobSpec
    setting: TrlSetting | None
    threads: int


def peak_bytes_above_base(case: MemoryCase) -> int:
    """Run the first steps in a new process and return its peak."""
    program = [sys.executable, "-m", "bench.memory"]
    text = json.dumps(_as_json(case))
    done = subprocess.run(program, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The memory run failed:\n{done.stderr}")
    return int(done.stdout.splitlines()[-1])


def _as_json(case: MemoryCase) -> dict[str, object]:
    return {
        "data": [str(case.data.base_folder), str(case.data.train_file)],
        "spec": case.spec.model_dump(mode="json"),
        "setting": None
        if case.setting is None
        else [case.setting.layout, case.setting.precision, case.setting.liger],
        "threads": case.threads,
    }


def _from_json(text: str) -> MemoryCase:
    case = json.loads(text)
    base_folder, train_file = case["data"]
    return MemoryCase(
        BenchmarkData(Path(base_folder), Path(train_file)),
        JobSpec.model_validate(case["spec"]),
        None if case["setting"] is None else TrlSetting(*case["setting"]),
        case["threads"],
    )


def main() -> None:
    """Read a run from standard input, execute it, and print the bytes."""
    case = _from_json(sys.stdin.read())
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(case.threads)
    base_bytes = _base_bytes(case)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _run(case)
        print(torch.cuda.max_memory_allocated() - base_bytes)
    else:
        reset_peak()
        before = status_bytes("VmRSS")
        _run(case)
        print(status_bytes("VmHWM") - before - base_bytes)


def _base_bytes(case: MemoryCase) -> int:
    """Load the base once to measure its size and to warm up the libraries."""
    if case.setting is not None:
        return load_peer_base(case.setting, case.spec).get_memory_footprint()
    is_bf16 = case.spec.training.precision == "bf16"
    precision: TrlPrecision = "bf16 weights" if is_bf16 else "fp32"
    return load_peer_base(TrlSetting("padded", precision), case.spec).get_memory_footprint()


def _run(case: MemoryCase) -> MeasuredRun:
    if case.setting is None:
        return run_ours(case.data, case.spec, MEMORY_STEPS, perf_counter)
    rows = benchmark_rows(case.data, case.spec)
    return run_trl(case.setting, case.spec, rows, MEMORY_STEPS, perf_counter)


def reset_peak() -> None:
    """Release freed memory, so that neither side starts with uncounted memory."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"This system does not report {field}; memory is measured on Linux only.")


if __name__ == "__main__":
    main()
