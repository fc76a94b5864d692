"""What the API asks of the engine, and what the engine answers.

One request is one POST; the answer is a stream of JSON lines, each a `GenerationEvent`.
An error before the first token is an HTTP status with `{"error": {message, param, code}}`;
after it, a `GenerationFailed` line.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.precision import NumberFormat
from core.spec.serving import ADAPTER_FORM, ServingSpec

FinishReason = Literal["stop", "length", "tool_calls"]

LONGEST_GIVEN_ANSWER = 1024


class ChatPrompt(Spec):
    """Messages in OpenAI's form, rendered by the model's own chat template."""

    type: Literal["chat"] = "chat"
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="variables of the chat template, such as enable_thinking"
    )


class TextPrompt(Spec):
    """Plain text, tokenised as it is."""

    type: Literal["text"] = "text"
    text: str


class TokenPrompt(Spec):
    """Token ids, taken as they are."""

    type: Literal["tokens"] = "tokens"
    tokens: tuple[int, ...]


Prompt = Annotated[ChatPrompt | TextPrompt | TokenPrompt, Field(discriminator="type")]


class JsonObjectOutput(Spec):
    """Any JSON object."""

    type: Literal["json_object"] = "json_object"


class SchemaOutput(Spec):
    """JSON that a schema describes."""

    type: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any]


class ToolCallOutput(Spec):
    """A call of one of the prompt's tools, of `name` if it is given, as the template writes it."""

    type: Literal["tool_call"] = "tool_call"
    name: str | None = None


StructuredOutputSpec = Annotated[
    JsonObjectOutput | SchemaOutput | ToolCallOutput, Field(discriminator="type")
]


class SamplingSpec(Spec):
    """How tokens are chosen. Temperature 0 is greedy."""

    max_tokens: int | None = Field(
        None, ge=0, description="None: as many as the context holds; 0: only read the prompt"
    )
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int = Field(ge=0, le=2**63 - 1)
    stop: tuple[str, ...] = ()
    n: int = Field(1, ge=1, le=128)
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="None: no log-probabilities; k: the chosen token and k best"
    )
    logit_bias: dict[int, float] = Field(
        default_factory=dict, description="added to the logit of a token, by its id"
    )
    frequency_penalty: float = Field(
        0.0, ge=-2, le=2, description="taken off a logit for each time that the token was written"
    )
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, description="taken off a logit once the token was written"
    )
    score_prompt: bool = Field(
        False, description="also tell how likely each token of the prompt was; needs top_logprobs"
    )
    structured_output: StructuredOutputSpec | None = Field(None, description="None: plain text")
    given_answer: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_GIVEN_ANSWER,
        description="tokens to write in place of any choice, to learn how likely they are; none of "
        "them ends the answer, and they stand in place of max_tokens",
    )
    ignore_eos: bool = Field(
        False, description="the end token ends nothing, so that max_tokens are written"
    )

    @model_validator(mode="after")
    def _refuse_a_choice(self) -> "SamplingSpec":
        if self.given_answer is not None and (
            self.n > 1 or self.structured_output is not None or self.stop
        ):
            raise ValueError("given_answer excludes n, structured_output and stop")
        return self

    @model_validator(mode="after")
    def _require_an_end(self) -> "SamplingSpec":
        if self.ignore_eos and self.structured_output is not None:
            raise ValueError(
                "ignore_eos excludes structured_output, which ends when it is complete"
            )
        return self


class GenerationRequest(Spec):
    id: str
    base: BaseModelSpec
    adapter: BundleRef | None = None
    serving: ServingSpec = Field(ADAPTER_FORM, description="in which form the adapter is served")
    prompt: Prompt
    sampling: SamplingSpec
    project: str = Field("", description="on whose behalf; the engine is fair between projects")


class TokenLogprob(Spec):
    """Natural-log probability of one token; `bytes` are its UTF-8 bytes."""

    token: str
    bytes: tuple[int, ...]
    logprob: float


class GeneratedToken(TokenLogprob):
    top: tuple[TokenLogprob, ...] = ()


class PromptToken(Spec):
    """A token of the prompt; nothing says how likely the first one is. `bytes` are its text's."""

    token: str
    bytes: tuple[int, ...]
    logprob: float | None
    top: tuple[TokenLogprob, ...] = ()


class GenerationStarted(Spec):
    type: Literal["started"] = "started"
    prompt_tokens: int
    hardware: str = ""
    """What computes it, and in which precision: `cpu, fp32`."""
    precision: NumberFormat | None = None
    """Of the weights that compute it; None of an engine that does not tell."""
    prompt: tuple[PromptToken, ...] = ()
    """Empty unless the prompt was to be scored."""
    prompt_ids: tuple[int, ...] = ()
    """The prompt as the model reads it; empty unless the answer was given."""


class GenerationDelta(Spec):
    """New text of one choice: whole characters only, never part of a stop sequence."""

    type: Literal["delta"] = "delta"
    choice: int
    text: str
    reasoning: str = Field("", description="text that the template sets apart as reasoning")
    logprobs: tuple[GeneratedToken, ...] = ()


class ToolCalled(Spec):
    """A call that one choice ends with; the arguments are JSON."""

    type: Literal["tool_call"] = "tool_call"
    choice: int
    name: str
    arguments: str


class ChoiceFinished(Spec):
    type: Literal["choice_finished"] = "choice_finished"
    choice: int
    finish_reason: FinishReason
    completion_tokens: int
    reasoning_tokens: int = 0


class GenerationFailed(Spec):
    type: Literal["failed"] = "failed"
    code: str
    message: str
    param: str | None = None


GenerationEvent = Annotated[
    GenerationStarted | GenerationDelta | ToolCalled | ChoiceFinished | GenerationFailed,
    Field(discriminator="type"),
]

generation_event_adapter: TypeAdapter[GenerationEvent] = TypeAdapter(GenerationEvent)
