"""What a Python grader may use."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one call. OpenAI allows two minutes, 2 GB and 256 KiB of source."""

    wall_seconds: float = 30.0
    """From the moment that the sandbox is ready, so a busy machine does not shorten it."""
    cpu_seconds: int = 30
    """Of all threads together. The kernel counts whole seconds."""
    memory_bytes: int = 512 * MIB
    """Address space of the process, the interpreter (about 30 MiB) included."""
    threads: int = 16
    """Threads, the first included. A grader never has a second process."""
    folder_bytes: int = 16 * MIB
    """Of `/tmp`, in memory: the only place where a grader can write."""
    folder_files: int = 1024
    """Files and folders in `/tmp`."""
    open_files: int = 64
    output_bytes: int = 16 * 1024
    """Of the answer: a score, or the text of an error."""
    source_bytes: int = 256 * 1024


LIMITS = Limits()
