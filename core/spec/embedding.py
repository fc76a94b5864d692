"""The protocol between API and engine for embeddings.

One request is one POST and one JSON answer; an error is an HTTP status with
`{"error": {message, param, code}}`.
"""

from typing import Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.classification import MAX_TEXTS
from core.spec.model_request import ModelRequest
from core.spec.precision import NumberFormat

PoolingMode = Literal["mean", "cls", "max", "lasttoken"]
"""How the states of a text's tokens become one vector, by the names of sentence-transformers: their
mean, that of the first token, the maximum of each element, or that of the last token."""

Texts = tuple[str, ...]
TokenLists = tuple[tuple[int, ...], ...]


class PoolingSpec(Spec):
    """How a vector is made of the states of a text's tokens."""

    mode: PoolingMode
    is_normalized: bool = Field(description="its length is 1, also after it was shortened")
    dimensions: int | None = Field(None, ge=1, description="the first elements only; None: all")


class EmbeddingRequest(ModelRequest):
    """Texts, or texts as token ids of the model, which are used unchanged."""

    texts: Texts | TokenLists = Field(min_length=1, max_length=MAX_TEXTS)
    dimensions: int | None = Field(None, ge=1, description="of each vector; None: all")
    background: bool = Field(False, description="gives way to live requests")

    @property
    def sequences(self) -> int:
        return len(self.texts)


class EmbeddingAnswer(Spec):
    """The vector of each text, in the order of the request."""

    vectors: tuple[str, ...] = Field(description="base64 of little-endian 32-bit floats")
    tokens: int = Field(description="of all texts, with the tokenizer's special tokens")
    precision: NumberFormat | None = None
    """Of the weights used; None if the engine does not report it."""
