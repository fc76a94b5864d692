"""The parent process of the engine: it listens, and replaces a child that dies.

An engine is two processes. The parent opens the listening socket and imports all modules; its
child, forked from it, is the engine. A dead child is replaced in a fraction of a second, because
the imports, which take 5 to 10 s, are already done. New connections wait in the socket until then.
`worker.child.preload` explains what is allowed before a fork.
"""

import gc
import importlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from multiprocessing.synchronize import Event
from types import FrameType

import torch

from worker.engine.settings import EngineSettings

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
BACKLOG = 2048
"""The maximum number of connections that wait for a child to accept them."""

_context = multiprocessing.get_context("fork")


class Parent:
    """Keeps one child running until it is asked to stop, or until a child fails to start."""

    def __init__(self, settings: EngineSettings, listener: socket.socket, threads: int) -> None:
        self._arguments = settings, listener, threads
        self._child: ForkProcess | None = None
        self._is_stopping = False

    def run(self) -> int:
        """Return the exit status: 0 after SIGTERM or SIGINT, otherwise that of the last child."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._stop)
        while True:
            has_served = _context.Event()
            status = self._run_child(has_served)
            if self._is_stopping:
                return 0
            if not has_served.is_set():  # another child would fail in the same way
                return abs(status) or 1
            logger.warning("The engine's child ended with status %d. Starting another one.", status)

    def _run_child(self, has_served: Event) -> int:
        arguments = (*self._arguments, has_served)
        self._child = _context.Process(target=_serve, args=arguments, name="engine")
        # Signals stay pending until the child has replaced the inherited handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        self._child.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        if self._is_stopping:  # the signal came before the child existed
            self._child.terminate()
        self._child.join()
        status = self._child.exitcode
        assert status is not None
        return status

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_stopping = True
        if self._child is not None and self._child.pid is not None:
            self._child.terminate()


def _serve(
    settings: EngineSettings, listener: socket.socket, threads: int, has_served: Event
) -> None:
    """Run the engine in the child."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    _exit_with_parent()
    torch.set_num_threads(threads)
    importlib.import_module("worker.engine.serve").serve(settings, listener, has_served.set)


def import_ahead() -> None:
    """Import the engine's modules before the fork, with one thread and without using CUDA."""
    torch.set_num_threads(1)
    if torch.cuda.device_count() == 0:
        importlib.import_module("worker.engine.serve")
    else:  # the rest loads bitsandbytes, which queries the GPU's capability
        importlib.import_module("core.models.load")
    gc.freeze()  # a collection in a child would copy the shared pages


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
