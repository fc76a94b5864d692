"""The result of a mask audit: for each token, whether a run trains on it."""

from typing import Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.job import JobSpec

AUDITED_ROWS = 5
"""The number of first rows that are shown."""

SHOWN_TOKENS = 2048
"""Of one part; further tokens are only counted."""


class MaskToken(Spec):
    text: str = Field(
        description="the text of the token; a character of several tokens belongs to the last one"
    )
    trained: bool


class MaskPart(Spec):
    """One sequence of tokens: a complete row, one of a pair, or one side of a seq2seq row."""

    name: Literal["text", "chosen", "rejected", "source", "target"]
    tokens: tuple[MaskToken, ...]
    total_tokens: int
    trained_tokens: int


class MaskRow(Spec):
    """A row of the training file as tokens; `labels` are those of a classifier."""

    line: int
    parts: tuple[MaskPart, ...]
    labels: tuple[str, ...] = ()


class MaskRequest(Spec):
    """The input of a mask audit: the training file `blob_key`, to be read as in a run of `spec`."""

    spec: JobSpec
    blob_key: str


class MaskResult(Spec):
    """The result of a mask audit."""

    rows: tuple[MaskRow, ...]
