"""What the API asks of the engine, and what the engine answers.

One request is one POST; the answer is a stream of JSON lines, each a `GenerationEvent`.
An error before the first token is an HTTP status with `{"error": {message, param, code}}`;
after it, a `GenerationFailed` line.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from core.spec.base import Spec
from core.spec.run import BaseModelSpec, BundleRef

FinishReason = Literal["stop", "length"]


class ChatPrompt(Spec):
    """Messages in OpenAI's form, rendered by the model's own chat template."""

    type: Literal["chat"] = "chat"
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()


class TextPrompt(Spec):
    """Plain text, tokenised as it is."""

    type: Literal["text"] = "text"
    text: str


class TokenPrompt(Spec):
    """Token ids, taken as they are."""

    type: Literal["tokens"] = "tokens"
    tokens: tuple[int, ...]


Prompt = Annotated[ChatPrompt | TextPrompt | TokenPrompt, Field(discriminator="type")]


class SamplingSpec(Spec):
    """How tokens are chosen. Temperature 0 is greedy."""

    max_tokens: int | None = Field(None, ge=1, description="None: as many as the context holds")
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int = Field(ge=0, le=2**63 - 1)
    stop: tuple[str, ...] = ()
    n: int = Field(1, ge=1, le=128)
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="None: no log-probabilities; k: the chosen token and k best"
    )


class GenerationRequest(Spec):
    id: str
    base: BaseModelSpec
    adapter: BundleRef | None = None
    prompt: Prompt
    sampling: SamplingSpec


class TokenLogprob(Spec):
    """Natural-log probability of one token; `bytes` are its UTF-8 bytes."""

    token: str
    bytes: tuple[int, ...]
    logprob: float


class GeneratedToken(TokenLogprob):
    top: tuple[TokenLogprob, ...] = ()


class GenerationStarted(Spec):
    type: Literal["started"] = "started"
    prompt_tokens: int


class GenerationDelta(Spec):
    """New text of one choice: whole characters only, never part of a stop sequence."""

    type: Literal["delta"] = "delta"
    choice: int
    text: str
    logprobs: tuple[GeneratedToken, ...] = ()


class ChoiceFinished(Spec):
    type: Literal["choice_finished"] = "choice_finished"
    choice: int
    finish_reason: FinishReason
    completion_tokens: int


class GenerationFailed(Spec):
    type: Literal["failed"] = "failed"
    code: str
    message: str
    param: str | None = None


GenerationEvent = Annotated[
    GenerationStarted | GenerationDelta | ChoiceFinished | GenerationFailed,
    Field(discriminator="type"),
]

generation_event_adapter: TypeAdapter[GenerationEvent] = TypeAdapter(GenerationEvent)
