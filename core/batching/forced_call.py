"""How a call is written that a model is made to write: fixed texts with two places to fill.

Plain Python.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ForcedPairs:
    """Arguments as pairs of texts: `before key amid value after` for each."""

    before: str
    amid: str
    after: str


@dataclass(frozen=True)
class ForcedCall:
    """`before name amid arguments after`, in coded text; ids in it are holes.

    Arguments are a JSON object, or pairs.
    """

    before: str
    amid: str
    after: str
    pairs: ForcedPairs | None = None
