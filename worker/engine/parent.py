"""The parent of the engine: it listens, and replaces a child that dies.

An engine is two processes. The parent listens on the port, has everything imported and does
nothing else; its child, forked from it, is the engine. A child that dies is replaced in a fraction
of a second, without the imports that take 5 to 10 s, and connections made meanwhile wait at the
socket, which the parent holds. `worker.child.preload` explains what may be done before a fork.
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
"""Connections that wait for a child to take them."""

_context = multiprocessing.get_context("fork")


class Parent:
    """Keeps one child serving until it is told to stop, or until a child cannot live."""

    def __init__(self, settings: EngineSettings, listener: socket.socket, threads: int) -> None:
        self._arguments = settings, listener, threads
        self._child: ForkProcess | None = None
        self._is_stopping = False

    def run(self) -> int:
        """Return the status to exit with: 0 after SIGTERM or SIGINT, else the last child's."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._stop)
        while True:
            has_served = _context.Event()
            status = self._live_through_one_child(has_served)
            if self._is_stopping:
                return 0
            if not has_served.is_set():  # what is wrong would be wrong with another one as well
                return abs(status) or 1
            logger.warning("The engine ended with status %d; another one takes its place.", status)

    def _live_through_one_child(self, has_served: Event) -> int:
        arguments = (*self._arguments, has_served)
        self._child = _context.Process(target=_serve, args=arguments, name="engine")
        # A signal waits until the child has put off what it inherits from here.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        self._child.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        if self._is_stopping:  # it came before there was a child to tell
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
    """Be the engine."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    _die_with_the_parent()
    torch.set_num_threads(threads)
    importlib.import_module("worker.engine.serve").serve(settings, listener, has_served.set)


def import_ahead() -> None:
    """Import what no child should have to; single-threaded, and without touching CUDA."""
    torch.set_num_threads(1)
    if torch.cuda.device_count() == 0:
        importlib.import_module("worker.engine.serve")
    else:  # the rest loads bitsandbytes, which asks CUDA for its capability
        importlib.import_module("core.models.load")
    gc.freeze()  # a child's collections leave these pages shared


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _die_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
