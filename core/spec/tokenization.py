"""The protocol between API and engine for a model's tokenizer, which needs no weights.

One request is one POST and one JSON answer; an error is an HTTP status with
`{"error": {message, param, code}}`.
"""

from pydantic import Field

from core.spec.base import Spec
from core.spec.generation import ChatPrompt, TextPrompt
from core.spec.model_request import ModelRequest


class TokenizeRequest(ModelRequest):
    """A text, or messages with the chat template."""

    prompt: ChatPrompt | TextPrompt = Field(discriminator="type")
    add_special_tokens: bool = Field(
        True, description="of a text: those with which the model reads it; ignored for messages"
    )
    add_generation_prompt: bool = Field(
        True, description="of messages: with the opening of the answer; ignored for a text"
    )
    with_names: bool = Field(False, description="also return the tokens as the vocabulary has them")


class TokenizeAnswer(Spec):
    tokens: tuple[int, ...]
    names: tuple[str, ...] | None = Field(None, description="None unless requested")
    context_length: int = Field(description="the maximum number of tokens")


class DetokenizeRequest(ModelRequest):
    tokens: tuple[int, ...]


class DetokenizeAnswer(Spec):
    text: str


class TokenizerRequest(ModelRequest):
    """Asks for the facts of a tokenizer."""


class TokenizerAnswer(Spec):
    """The facts of a tokenizer; None for a special token that it lacks."""

    tokenizer_class: str
    context_length: int
    chat_template: str | None
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    sep_token: str | None
    pad_token: str | None
    cls_token: str | None
    mask_token: str | None
