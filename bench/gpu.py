"""Training at real size on a CUDA device: bf16 LoRA, NF4 QLoRA and full, beside TRL and Liger.

    python -m bench.gpu [--sizes 1B,8B] [--rounds N]

Weights are random, which affects neither speed nor memory. Without a device, nothing is measured.
"""

import argparse
import importlib.util
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from bench.cases import CASES, Case, TrlSetting
from bench.data import ModelSize, build
from bench.report import save
from bench.training import BATCH_ROWS, SEED, Plan, measure

SIZES = {
    "1B": ModelSize("1B", 2048, 8192, 16, 32, 8, 128_256, torch.bfloat16),
    "8B": ModelSize("8B", 4096, 14_336, 32, 32, 8, 128_256, torch.bfloat16),
}
STRATEGIES = {"1B": ("lora", "qlora", "full"), "8B": ("lora", "qlora")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="1B,8B", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=1, help="interleaved repeats")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("This machine has no CUDA device; nothing was measured.")
        return
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    plan = Plan(rounds=options.rounds, steps=12, curve_steps=0, precisions=("bf16",))
    for name in options.sizes.split(","):
        size, cases = SIZES[name], [_on_gpu(CASES[each]) for each in STRATEGIES[name]]
        with tempfile.TemporaryDirectory() as folder:
            data = build(Path(folder), BATCH_ROWS * (plan.steps + 4), SEED, size)
            report = measure(data, cases, plan, _synchronized_clock)
        print(report.markdown())
        print("Saved:", *save(report))


def _synchronized_clock() -> float:
    """Return the time in seconds after all queued work of the device is done."""
    torch.cuda.synchronize()
    return time.perf_counter()


def _on_gpu(case: Case) -> Case:
    """The settings of TRL for a CUDA device, with and without Liger's kernels."""
    kernels = (False, True) if importlib.util.find_spec("liger_kernel") else (False,)
    settings = tuple(
        TrlSetting(layout, "bf16 weights", liger)
        for layout in ("padded", "padding-free", "packed")
        for liger in kernels
    )
    return replace(case, settings=settings)


if __name__ == "__main__":
    main()
