"""Measures the device of this machine for the planner, in at most five seconds."""

import math
import os
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from core.cores import usable_cores
from core.models.memory import free_bytes, total_bytes
from core.models.precision import has_native_bf16, pick_device
from core.models.sixteen_bit_products import has_products
from core.spec.calibration import Calibration, ProductSpeed

SECONDS = 3.0
"""Of all readings; the first ones of each figure come before."""

SECONDS_PER_READING = 0.01

UNDISTURBED_SHARE = 0.25
"""The share of readings that other processes and the host are expected to leave alone."""

SMALL = 128, 256
LARGE = 512, 768
"""Rows, and inputs and outputs, of the measured products."""

COPIED_BYTES = 64 * 2**20
"""More than the caches of a CPU hold."""

CUDA_CONTEXT_BYTES = 600 * 2**20
"""About what CUDA and its libraries keep on the device; a process cannot see its own share."""


def calibrate(threads: int | None) -> Calibration:
    """Return the figures of the device that a run here would use, with its number of threads."""
    device = pick_device()
    threads = threads or usable_cores()
    torch.set_num_threads(threads)
    runtime = CUDA_CONTEXT_BYTES if device.type == "cuda" else _resident_bytes()
    free = free_bytes(device)
    fp32 = _products(device, torch.float32)
    # where 16 bits have no instructions, a run multiplies in fp32
    is_fast = has_products(device, torch.bfloat16)
    bf16 = _products(device, torch.bfloat16) if is_fast else fp32
    copy, operation = _copy(device), _operation(device)
    _read_in_turns([*fp32, *(bf16 if is_fast else ()), copy, operation])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Calibration(
        machine=secrets.token_hex(8),
        device=name,
        kind="cuda" if device.type == "cuda" else "cpu",
        threads=threads,
        native_bf16=has_native_bf16(device),
        fp32=_product_speed(fp32),
        bf16=_product_speed(bf16),
        bytes_per_second=2 * COPIED_BYTES / copy.seconds,
        operation_seconds=operation.seconds,
        runtime_bytes=runtime,
        memory_bytes=total_bytes(device),
        free_bytes=total_bytes(device) if free is None else free,
    )


class _Timed:
    """A piece of work, and how long it took in each reading."""

    def __init__(self, work: Callable[[], Tensor], device: torch.device) -> None:
        self._work = work
        self._device = device
        self._readings: list[float] = []
        self._batch = 1
        self._read()  # loads what the work needs
        self._batch = math.ceil(SECONDS_PER_READING / self._read())

    @property
    def seconds(self) -> float:
        """The time on a free machine."""
        return sorted(self._readings)[int(len(self._readings) * UNDISTURBED_SHARE)]

    def read(self) -> None:
        self._readings.append(self._read())

    def _read(self) -> float:
        started = time.perf_counter()
        for _ in range(self._batch):
            self._work()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return max((time.perf_counter() - started) / self._batch, 1e-9)


def _read_in_turns(figures: Sequence[_Timed]) -> None:
    """Read each figure many times, so that a second of other work spoils a part of each."""
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for each in figures:
            each.read()


def _products(device: torch.device, dtype: torch.dtype) -> list[_Timed]:
    products = []
    for rows, width in (SMALL, LARGE):
        left = torch.randn(rows, width, device=device).to(dtype)
        right = torch.randn(width, width, device=device).to(dtype)
        products.append(_Timed(partial(torch.mm, left, right), device))
    return products


def _product_speed(products: Sequence[_Timed]) -> ProductSpeed:
    small, large = (
        2 * rows * width * width / product.seconds
        for (rows, width), product in zip((SMALL, LARGE), products, strict=True)
    )
    return ProductSpeed(small=small, large=large)


def _copy(device: torch.device) -> _Timed:
    source = torch.zeros(COPIED_BYTES // 4, device=device)
    return _Timed(partial(torch.empty_like(source).copy_, source), device)


def _operation(device: torch.device) -> _Timed:
    return _Timed(partial(torch.zeros(8, device=device).add_, 1), device)


def _resident_bytes() -> int:
    """Return the resident memory of this process, with the pages that it shares."""
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
