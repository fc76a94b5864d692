"""Celery over a folder: kombu's filesystem transport, made safe for several processes.

Kombu's channel writes a message under its final name, reads without a lock and moves received
messages to the system's temporary folder, possibly across filesystems. A consumer can then read
an empty file, fail to decode it, and crash its worker. Here every file is written under a
temporary name and renamed, and a message is received by renaming it: files are always complete,
and exactly one consumer gets each message.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from time import monotonic_ns
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps, loads


class Channel(filesystem.Channel):
    """A channel whose messages and exchange tables change atomically."""

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:
        # Names sort by the time of sending, so a queue is first in, first out.
        name = f"{monotonic_ns():020d}-{os.urandom(8).hex()}.{queue}.msg"
        _write_atomically(Path(self.data_folder_out) / name, payload)

    def _get(self, queue: str) -> Any:
        folder = Path(self.data_folder_in)
        for name in sorted(os.listdir(folder)):
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            taken = folder / f".taken-{name}"
            try:
                os.rename(folder / name, taken)
            except FileNotFoundError:
                continue  # another consumer was faster
            payload = loads(taken.read_bytes())
            taken.unlink()
            return payload
        raise Empty

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        binding = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        with _locked(Path(self.control_folder) / ".lock"):
            bindings = self.get_table(exchange)
            if binding not in bindings:
                _write_atomically(self._exchange_file(exchange), [binding, *bindings])


class Transport(filesystem.Transport):
    """The transport of `broker.py` for `folder://` URLs."""

    Channel = Channel


def _write_atomically(target: Path, payload: Any) -> None:
    text: str = dumps(payload)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=target.parent, prefix=".writing-", delete=False
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # otherwise a power failure could leave an empty file
    os.replace(file.name, target)


@contextmanager
def _locked(lock_file: Path) -> Iterator[None]:
    with lock_file.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
