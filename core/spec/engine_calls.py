"""The routes of an engine with one answer per request; `POST /generate` streams instead."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from core.spec.base import Spec
from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.embedding import EmbeddingAnswer, EmbeddingRequest
from core.spec.model_request import ModelRequest
from core.spec.tokenization import (
    DetokenizeAnswer,
    DetokenizeRequest,
    TokenizeAnswer,
    TokenizerAnswer,
    TokenizeRequest,
    TokenizerRequest,
)

Asked = TypeVar("Asked", bound=ModelRequest)
Answered = TypeVar("Answered", bound=Spec)


@dataclass(frozen=True)
class Call(Generic[Asked, Answered]):
    """A POST with one JSON body and one JSON answer. An older engine lacks the newer ones."""

    path: str
    request: type[Asked]
    answer: type[Answered]
    param: str
    """The field of the public body that has the texts, for an error in them."""


CLASSIFY = Call("/classify", ClassificationRequest, ClassificationAnswer, "input")
EMBED = Call("/embed", EmbeddingRequest, EmbeddingAnswer, "input")
TOKENIZE = Call("/tokenize", TokenizeRequest, TokenizeAnswer, "prompt")
DETOKENIZE = Call("/detokenize", DetokenizeRequest, DetokenizeAnswer, "tokens")
DESCRIBE_TOKENIZER = Call("/tokenizer", TokenizerRequest, TokenizerAnswer, "model")

CALLS: tuple[Call[Any, Any], ...] = (CLASSIFY, EMBED, TOKENIZE, DETOKENIZE, DESCRIBE_TOKENIZER)
