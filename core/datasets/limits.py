"""The limits that a check of an untrusted file sets for its own process."""

import argparse
import math
import resource
from pathlib import Path

_MAPPED_BYTES = 512 << 20


def limited_parser() -> argparse.ArgumentParser:
    """Return a parser of the arguments that every check has: the file and the limits."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    return parser


def limit_process(arguments: argparse.Namespace) -> None:
    """Limit the memory and the CPU time of this process to those of the arguments."""
    # The deadline is tested after each line; the CPU limit also stops a line that never ends.
    cpu_seconds = math.ceil(arguments.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    # RLIMIT_DATA bounds allocated memory; RLIMIT_AS adds room for mapped libraries.
    address_space = arguments.memory_bytes + _MAPPED_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (arguments.memory_bytes, arguments.memory_bytes))
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
