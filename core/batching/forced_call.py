"""The literals of a forced tool call, around its name and arguments. Plain Python."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ForcedPairs:
    """Arguments as pairs: `before key amid value after` for each."""

    before: str
    amid: str
    after: str


@dataclass(frozen=True)
class ForcedCall:
    """`before name amid arguments after` in coded text; ids are placeholders.

    Arguments are a JSON object, or `pairs`.
    """

    before: str
    amid: str
    after: str
    pairs: ForcedPairs | None = None
