"""A part of an answer between two fixed texts. Plain Python."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """The exact texts that a template writes before and after a part of an answer."""

    opening: str
    closing: str
