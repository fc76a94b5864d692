"""Runs a grader and words its answer. Inside the sandbox; nothing here is trusted afterwards."""

from __future__ import annotations

import os
import struct
from math import isfinite

TYPE_CHECKING = False  # see `libc`
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

SCORE = b"S"
"""Followed by the score, a double."""
ERROR = b"E"
"""Followed by a text in UTF-8."""
_FILE = "grader.py"  # in tracebacks
_RESERVE_BYTES = 1 << 20
_MOST_FRAMES = 30
_LONGEST_NAME = 100


def answer(source: str, sample: Any, item: Any, limits: Mapping[str, Any]) -> bytes:
    """Return the message for the caller: a score, or the end of the traceback."""
    longest = limits["output_bytes"] - len(ERROR)
    reserve = bytearray(_RESERVE_BYTES)  # for our own words when the memory is used up
    try:
        return SCORE + struct.pack("<d", _score(source, sample, item))
    except MemoryError:
        del reserve
        mebibytes = limits["memory_bytes"] >> 20
        text = f"The grader exceeded the memory limit of {mebibytes} MiB."
    except _Wrong as error:
        text = str(error)
    except BaseException as error:
        text = _traceback(error, source)
    return ERROR + text[-longest:].encode(errors="backslashreplace")[-longest:]


class _Wrong(Exception):
    """The grader ran, but its answer is no score."""


def _score(source: str, sample: Any, item: Any) -> float:
    module = type(os)("grader")
    module.__file__ = _FILE
    exec(compile(source, _FILE, "exec", dont_inherit=True), module.__dict__)
    grade: Callable[..., Any] | None = module.__dict__.get("grade")
    if not callable(grade):
        raise _Wrong("The source defines no function grade(sample, item).")
    value = grade(sample, item)
    # A subclass may define how it becomes a float; this asks the base.
    if isinstance(value, float):
        score = float.__float__(value)
    elif isinstance(value, int):
        try:
            score = int.__float__(value)
        except OverflowError:
            score = float("inf")
    else:
        kind = _name(type(value))
        raise _Wrong(f"grade() returned a value of the type {kind}; it must return a number.")
    if not isfinite(score):
        raise _Wrong(f"grade() returned {score}; a score is a finite number.")
    return score


def _traceback(error: BaseException, source: str) -> str:
    """Return the traceback without our own frames. The error may be made to resist this."""
    try:
        import linecache
        import traceback

        lines = source.splitlines(keepends=True)
        linecache.cache[_FILE] = (len(source), None, lines, _FILE)
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename != _FILE:
            frames = frames.tb_next
        shown = error.with_traceback(frames)
        return "".join(traceback.format_exception(shown, limit=-_MOST_FRAMES))
    except BaseException:
        return f"{_name(type(error))}, whose traceback cannot be shown"


def _name(kind: type) -> str:
    """Return the name of a class, whatever its metaclass says."""
    name: str = type.__dict__["__name__"].__get__(kind)
    return name[:_LONGEST_NAME]
