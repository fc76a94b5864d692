"""The filter of system calls for both architectures, run instruction by instruction."""

import ctypes.util
import errno
import re
import struct
from pathlib import Path

import pytest

from core.sandbox.inside import libc
from core.sandbox.seccomp import AUDIT_ARCH, UnknownMachine, filter_program
from core.sandbox.syscalls import ALLOWED, BY_ARGUMENT, CLONE, REFUSED, Numbers

ALLOW = 0x7FFF0000
KILL = 0x80000000
EPERM = 0x00050000 | errno.EPERM
ENOSYS = 0x00050000 | errno.ENOSYS
HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"__NR_(\w+)\s+(\d+)$"),
    "aarch64": ("/usr/include/asm-generic/unistd.h", r"__NR(?:3264)?_(\w+)\s+(\d+)$"),
}
MACHINES = sorted(AUDIT_ARCH)


def verdict(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    """Run the filter on one call, and check that it reads within the kernel's data."""
    six = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch or AUDIT_ARCH[machine], 0, *six)
    program = list(struct.iter_unpack("<HBBI", filter_program(machine)))
    word = at = 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        match code:
            case 0x20:
                (word,) = struct.unpack_from("<I", data, operand)
            case 0x15:
                at += if_true if word == operand else if_false
            case 0x45:
                at += if_true if word & operand else if_false
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(f"instruction {code:#x}")


def number_of(numbers: Numbers, machine: str) -> int | None:
    return numbers.x86_64 if machine == "x86_64" else numbers.aarch64


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_has_the_verdict_of_its_table(machine: str) -> None:
    allowed = {number_of(numbers, machine) for numbers in ALLOWED.values()} - {None}
    refused = {number_of(numbers, machine) for numbers in REFUSED.values()} - {None}
    by_argument = {number_of(one_of.numbers, machine) for one_of in BY_ARGUMENT.values()}
    by_argument.add(number_of(CLONE, machine))
    assert len(allowed) > 60 and not allowed & refused and not by_argument & (allowed | refused)
    nowhere = 0xFFFF  # no argument allows this
    for number in range(600):
        if number in allowed:
            assert verdict(machine, number) == ALLOW
        elif number in refused | by_argument:
            assert verdict(machine, number, *[nowhere & ~0x10000] * 6) == EPERM
        else:
            assert verdict(machine, number) == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_another_architecture_end_the_process(machine: str) -> None:
    others = {*AUDIT_ARCH.values(), 0x40000003, 0x40000028} - {AUDIT_ARCH[machine]}  # i386, arm
    for arch in others:
        assert verdict(machine, 0, arch=arch) == KILL
    assert verdict(machine, 0x40000000) == ENOSYS  # x32 on x86_64


@pytest.mark.parametrize("machine", MACHINES)
def test_clone_makes_threads_and_nothing_else(machine: str) -> None:
    number = number_of(CLONE, machine)
    assert number is not None
    thread = 0x3D0F00  # of glibc
    assert verdict(machine, number, thread) == ALLOW
    assert verdict(machine, number, thread | 0x00400000) == ALLOW  # of musl
    assert verdict(machine, number, 17) == EPERM  # fork
    for new in (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, number, thread | new) == EPERM
        assert verdict(machine, number, new | 17) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_are_compared_as_the_kernel_reads_them(machine: str) -> None:
    for one_of in BY_ARGUMENT.values():
        number = number_of(one_of.numbers, machine)
        assert number is not None
        before = [0] * one_of.argument
        for value in one_of.values:
            assert verdict(machine, number, *before, value) == ALLOW
            assert verdict(machine, number, *before, value | 1 << 40) == ALLOW  # cut off
        assert verdict(machine, number, *before, 0x5412) == EPERM  # TIOCSTI, of ioctl


def test_other_architectures_are_refused_in_words() -> None:
    with pytest.raises(UnknownMachine, match="x86_64 and aarch64, not riscv64"):
        filter_program("riscv64")


def tables() -> dict[str, Numbers]:
    by_argument = {name: one_of.numbers for name, one_of in BY_ARGUMENT.items()}
    mounting = Numbers(*(libc._SYS_PIVOT_ROOT[machine] for machine in ("x86_64", "aarch64")))
    return {**ALLOWED, **REFUSED, **by_argument, "clone": CLONE, "pivot_root": mounting}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    path, pattern = HEADERS[machine]
    if not Path(path).exists():
        pytest.skip(f"there is no {path}")
    told = dict(re.findall(rf"^#define {pattern}", Path(path).read_text(), re.MULTILINE))
    for name, numbers in tables().items():
        number = number_of(numbers, machine)
        if number is not None:
            assert str(number) in (told.get(name), told.get(name.removeprefix("new"))), name


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_libseccomp(machine: str) -> None:
    """A list of its own, with both architectures on every machine, and what each one lacks."""
    found = ctypes.util.find_library("seccomp")
    if found is None:
        pytest.skip("libseccomp is not installed")
    resolve = ctypes.CDLL(found).seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    for name, numbers in tables().items():
        number = resolve(AUDIT_ARCH[machine], name.encode())
        assert number == number_of(numbers, machine) or (number < 0 and numbers.aarch64 is None), (
            name
        )
