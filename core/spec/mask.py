"""What a run trains on, token by token: the answer of a mask audit."""

from typing import Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.run import JobSpec

AUDITED_ROWS = 5
"""How many rows from the start of the file are shown."""

SHOWN_TOKENS = 2048
"""Of one part; what follows is counted only."""


class MaskToken(Spec):
    text: str = Field(
        description="what the token adds to the text; a character of several tokens stands with "
        "the last of them"
    )
    trained: bool


class MaskPart(Spec):
    """One sequence of tokens: a row's only one, one of a pair, or one side of a seq2seq row."""

    name: Literal["text", "chosen", "rejected", "source", "target"]
    tokens: tuple[MaskToken, ...]
    total_tokens: int
    trained_tokens: int


class MaskRow(Spec):
    """A row of the training file as the model sees it; `labels` are those of a classifier."""

    line: int
    parts: tuple[MaskPart, ...]
    labels: tuple[str, ...] = ()


class MaskRequest(Spec):
    """What a mask audit looks at: the training file `blob_key`, as a run of `spec` would."""

    spec: JobSpec
    blob_key: str


class MaskResult(Spec):
    """What a mask audit has found."""

    rows: tuple[MaskRow, ...]
