"""A part of an answer between two fixed texts. Plain Python."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """What stands before and after a part of an answer, exactly as the template writes it."""

    opening: str
    closing: str
