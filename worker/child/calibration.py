"""Measures the device of this machine for the planner, in at most five seconds."""

import math
import os
import secrets
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from core.cores import usable_cores
from core.models.memory import free_bytes, total_bytes
from core.models.precision import has_native_bf16, pick_device
from core.models.sixteen_bit_products import has_products
from core.spec.calibration import Calibration, ProductSpeed

SECONDS_PER_FIGURE = 0.4
SECONDS_PER_READING = 0.04
"""Ten times what the clock of a process may lag behind."""

SMALL = 128, 256
LARGE = 512, 768
"""Rows, and inputs and outputs, of the measured products."""

COPIED_BYTES = 64 * 2**20
"""More than the caches of a CPU hold."""

CUDA_CONTEXT_BYTES = 600 * 2**20
"""About what CUDA and its libraries keep on the device; a process cannot see its own share."""


def calibrate(threads: int | None) -> Calibration:
    """Return the figures of the device that a run here would use, with its number of threads.

    Only precise while nothing else computes.
    """
    device = pick_device()
    threads = threads or usable_cores()
    torch.set_num_threads(threads)
    runtime = CUDA_CONTEXT_BYTES if device.type == "cuda" else _resident_bytes()
    free = free_bytes(device)
    fp32 = _product_speed(device, torch.float32)
    # where 16 bits have no instructions, a run multiplies in fp32
    is_fast = has_products(device, torch.bfloat16)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Calibration(
        machine=secrets.token_hex(8),
        device=name,
        kind="cuda" if device.type == "cuda" else "cpu",
        threads=threads,
        native_bf16=has_native_bf16(device),
        fp32=fp32,
        bf16=_product_speed(device, torch.bfloat16) if is_fast else fp32,
        bytes_per_second=_bandwidth(device),
        operation_seconds=_operation_seconds(device),
        runtime_bytes=runtime,
        memory_bytes=total_bytes(device),
        free_bytes=total_bytes(device) if free is None else free,
    )


def _product_speed(device: torch.device, dtype: torch.dtype) -> ProductSpeed:
    speeds = []
    for rows, width in (SMALL, LARGE):
        left = torch.randn(rows, width, device=device).to(dtype)
        right = torch.randn(width, width, device=device).to(dtype)
        seconds = _seconds_of(partial(torch.mm, left, right), device)
        speeds.append(2 * rows * width * width / seconds)
    return ProductSpeed(small=speeds[0], large=speeds[1])


def _bandwidth(device: torch.device) -> float:
    source = torch.zeros(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / _seconds_of(lambda: target.copy_(source), device)


def _operation_seconds(device: torch.device) -> float:
    few = torch.zeros(8, device=device)
    return _seconds_of(lambda: few.add_(1), device, batch=100, threads=1)


def _seconds_of(
    work: Callable[[], Tensor], device: torch.device, batch: int = 1, threads: int | None = None
) -> float:
    """Return the time of `work`, which is started at least `batch` times between two readings.

    On a CPU it is the CPU time of each thread, which other processes do not lengthen, as long as
    all threads have the same work. The kernel adds that of the other threads to the clock every few
    milliseconds, so a reading takes longer. The median of the readings.
    """
    is_cuda = device.type == "cuda"
    clock = time.perf_counter if is_cuda else time.process_time
    shares = 1 if is_cuda else threads or torch.get_num_threads()
    found: list[float] = []
    end = time.perf_counter() + SECONDS_PER_FIGURE
    work()
    batch = max(batch, math.ceil(SECONDS_PER_READING / _wall_seconds(work, device)))
    while time.perf_counter() < end or len(found) < 3:
        started = clock()
        for _ in range(batch):
            work()
        if is_cuda:
            torch.cuda.synchronize()
        found.append((clock() - started) / batch / shares)
    return max(statistics.median(found), 1e-9)


def _wall_seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return max(time.perf_counter() - started, 1e-6)


def _resident_bytes() -> int:
    """Return the resident memory of this process, with the pages that it shares."""
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
