"""The filter of system calls as instructions of classic BPF, of 8 bytes each.

An allow-list: what a later kernel adds, or nobody thought of, is refused. Unknown calls fail with
ENOSYS, so that the C library falls back to older ones (to `clone`, whose flags can be read here,
from `clone3`, whose flags cannot). A call of another architecture ends the process.
Source: seccomp(2) and the kernel's `Documentation/userspace-api/seccomp_filter.rst`.
"""

import errno
import struct
from functools import cache

from core.sandbox.syscalls import (
    ALLOWED,
    BY_ARGUMENT,
    CLONE,
    CLONE_THREAD,
    NEVER_WITH_CLONE,
    REFUSED,
    Numbers,
)

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERROR = 0x00050000  # plus the number of the error

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]
_NUMBER_AT = 0
_ARCH_AT = 4
_ARGUMENTS_AT = 16

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand. Jumps count from the next instruction."""


class UnknownMachine(Exception):
    """There is no list of system calls for this architecture."""


@cache
def filter_program(machine: str) -> bytes:
    """Return the filter for a machine, as `os.uname()` names it."""
    if machine not in AUDIT_ARCH:
        raise UnknownMachine(
            f"The sandbox supports the architectures {' and '.join(AUDIT_ARCH)}, not {machine}."
        )
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for numbers in ALLOWED.values():
        program += _rule(numbers, machine, [(_RETURN, 0, 0, _ALLOW)])
    for one_of in BY_ARGUMENT.values():
        program += _rule(one_of.numbers, machine, _values(one_of.argument, one_of.values))
    program += _rule(CLONE, machine, _threads())
    for numbers in REFUSED.values():
        program += _rule(numbers, machine, [_refuse(errno.EPERM)])
    program.append(_refuse(errno.ENOSYS))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _rule(numbers: Numbers, machine: str, body: list[Instruction]) -> list[Instruction]:
    """Run `body`, which returns, for a system call."""
    number = numbers.x86_64 if machine == "x86_64" else numbers.aarch64
    if number is None:
        return []
    return [(_EQUAL, 0, len(body), number), *body]


def _values(argument: int, values: tuple[int, ...]) -> list[Instruction]:
    body: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument)]
    for value in values:
        body += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*body, _refuse(errno.EPERM)]


def _threads() -> list[Instruction]:
    return [
        (_LOAD, 0, 0, _ARGUMENTS_AT),
        (_ANY_BIT, 1, 0, CLONE_THREAD),
        _refuse(errno.EPERM),
        (_ANY_BIT, 0, 1, NEVER_WITH_CLONE),
        _refuse(errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _refuse(number: int) -> Instruction:
    return (_RETURN, 0, 0, _ERROR | number)
