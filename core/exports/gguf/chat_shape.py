"""The parts of the text that a chat template writes, so that another language can write them too.

A conversation is measured as: a lead before the content of each user, the end of the user, the
start and end of an assistant, calls, results, and the header of the next answer. A lead depends on
whether the user is the first or the last one, and on whether there is a system text and tools:
templates place both before the first user or the last. `chat_text.py` puts the parts together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from core.exports.gguf.go_json import JsonStyle
from core.exports.gguf.segments import Segments


class Position(NamedTuple):
    """What the lead of a user depends on."""

    first: bool
    last: bool
    system: bool
    tools: bool


@dataclass(frozen=True)
class Tools:
    """How tools are listed."""

    style: JsonStyle
    whole: bool
    """The whole definition, or only its function."""
    between: str


@dataclass(frozen=True)
class Calls:
    """How an assistant calls: start, (opening name middle arguments end)…, close."""

    start: str
    """What the assistant starts with instead of `ChatShape.start` if it calls."""
    opening: Segments
    after_text: Segments | None
    """The opening after a text; None if the template omits the text of an assistant that calls."""
    middle: str
    style: JsonStyle
    between: Segments | None
    """The opening of every call but the first; None if there can be only one."""
    end: Segments
    close: Segments


@dataclass(frozen=True)
class Results:
    """How results are written: (opening content end)…, close."""

    opening: Segments
    between: Segments
    """The opening of a result after another."""
    end: Segments
    close: Segments
    quoted: bool
    """The content is written as a JSON string."""


@dataclass(frozen=True)
class ChatShape:
    """All parts; `leads` lacks positions that the template rejects."""

    leads: Mapping[Position, Segments]
    user_end: str
    start: str
    end: str
    header: str
    tools: Tools | None = None
    calls: Calls | None = None
    results: Results | None = None
