"""Measures the device while the worker is idle, once per machine, and gives way to any work."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from core.free_memory import free_on_machine
from core.spec.calibration import CALIBRATION_VERSION, Calibration
from worker.launch import ask_for_calibration

logger = logging.getLogger(__name__)

FILE = "calibration.json"
"""In the work folder."""


class Calibrator:
    """The calibration of this worker's device: from a file of the work folder, or measured.

    A thread measures `idle_seconds` after the last work has ended. Work that begins meanwhile stops
    it at once, and it is repeated later.
    """

    def __init__(self, folder: Path, threads: int | None, idle_seconds: float) -> None:
        self._path = folder / FILE
        self._threads = threads
        self._idle_seconds = idle_seconds
        self._found = self._stored()
        self._changed = threading.Condition()
        self._working = 0
        self._worked = 0
        self._is_measuring = False
        self._ended = threading.Event()

    @property
    def found(self) -> Calibration | None:
        """The calibration; None until the device is measured.

        On a CPU, the free memory is that of now, or of the last time without work.
        """
        found = self._found
        if found is None or found.kind != "cpu" or self._working:
            return found
        free = free_on_machine()
        if free is not None:
            self._found = found = found.model_copy(update={"free_bytes": free})
        return found

    @property
    def is_measuring(self) -> bool:
        return self._is_measuring

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep the device free of measurements during the block; one that runs is stopped."""
        with self._changed:
            self._working += 1
            self._worked += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._is_measuring)
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure in a thread during the block, unless the device was measured before."""
        thread = threading.Thread(target=self._measure_when_idle, name="calibrate", daemon=True)
        if self._found is None:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            with self._changed:
                self._changed.notify_all()
            if thread.is_alive():
                thread.join()

    def _measure_when_idle(self) -> None:
        while not self._ended.is_set():
            if not self._wait_until_idle():
                continue
            try:
                self._found = ask_for_calibration(self._threads, self._should_stop)
            finally:
                with self._changed:
                    self._is_measuring = False
                    self._changed.notify_all()
            if self._found is not None:
                self._store(self._found)
                return

    def _wait_until_idle(self) -> bool:
        """Return whether nothing has worked for `idle_seconds`; then the measurement has begun."""
        with self._changed:
            self._changed.wait_for(lambda: self._working == 0 or self._ended.is_set())
            worked = self._worked
            is_idle = not self._changed.wait_for(
                lambda: self._worked != worked or self._ended.is_set(), self._idle_seconds
            )
            self._is_measuring = is_idle
            return is_idle

    def _should_stop(self) -> bool:
        return self._working > 0 or self._ended.is_set()

    def _stored(self) -> Calibration | None:
        try:
            found = Calibration.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            logger.warning("Cannot read %s; the device is measured again: %s", self._path, error)
            return None
        is_same = found.version == CALIBRATION_VERSION
        if self._threads is not None:
            is_same = is_same and found.threads == self._threads
        return found if is_same else None

    def _store(self, found: Calibration) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".partial")
            partial.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
            partial.replace(self._path)
        except OSError as error:
            logger.warning("Cannot store %s: %s", self._path, error)
