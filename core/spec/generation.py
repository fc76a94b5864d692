"""The protocol between API and engine for generation.

One request is one POST; the answer is a stream of JSON lines, each a `GenerationEvent`.
An error before the first token is an HTTP status with `{"error": {message, param, code}}`;
after it, a `GenerationFailed` line.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from core.errors import InvalidRequest, TunesmithError
from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.precision import NumberFormat
from core.spec.serving import ADAPTER_FORM, ServingSpec

FinishReason = Literal["stop", "length", "tool_calls"]

LONGEST_GIVEN_ANSWER = 1024

PromptEnding = Literal["generation_prompt", "nothing", "final_message"]
"""The end of a rendered conversation: the header of an answer, the messages as they are, or the
text of the last message, which the answer continues."""


class ChatPrompt(Spec):
    """Messages in OpenAI's format, rendered by the model's chat template."""

    type: Literal["chat"] = "chat"
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="variables of the chat template, such as enable_thinking"
    )
    ending: PromptEnding = Field("generation_prompt", description="what follows the messages")
    add_special_tokens: bool = Field(
        False, description="also those that the tokenizer adds before a text"
    )


class TextPrompt(Spec):
    """Plain text, tokenized as it is."""

    type: Literal["text"] = "text"
    text: str
    add_special_tokens: bool = Field(
        True, description="those that the tokenizer adds before a text"
    )


class TokenPrompt(Spec):
    """Token ids, used unchanged."""

    type: Literal["tokens"] = "tokens"
    tokens: tuple[int, ...]


Prompt = Annotated[ChatPrompt | TextPrompt | TokenPrompt, Field(discriminator="type")]


class _Output(Spec):
    param: str = Field("response_format", description="the field of the request, for errors")


class JsonObjectOutput(_Output):
    """Any JSON object."""

    type: Literal["json_object"] = "json_object"


class SchemaOutput(_Output):
    """JSON that follows a schema."""

    type: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any]


class RegexOutput(_Output):
    """A text that a regular expression matches as a whole."""

    type: Literal["regex"] = "regex"
    regex: str


class ChoiceOutput(_Output):
    """One of these texts."""

    type: Literal["choice"] = "choice"
    choices: tuple[str, ...]


class GrammarOutput(_Output):
    """A text of a grammar, written in llguidance's dialect of Lark or in GBNF."""

    type: Literal["grammar"] = "grammar"
    grammar: str


class ToolCallOutput(_Output):
    """A call to one of the prompt's tools, or to `name`, in the format of the template."""

    type: Literal["tool_call"] = "tool_call"
    name: str | None = None


ConstrainedText = JsonObjectOutput | SchemaOutput | RegexOutput | ChoiceOutput | GrammarOutput
"""What the text of an answer may be constrained to."""

StructuredOutputSpec = Annotated[ConstrainedText | ToolCallOutput, Field(discriminator="type")]


class SamplingSpec(Spec):
    """How tokens are chosen. Temperature 0 is greedy."""

    max_tokens: int | None = Field(
        None, ge=0, description="None: as many as fit into the context; 0: only process the prompt"
    )
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    top_k: int = Field(0, ge=0, description="only the k most likely tokens; 0: all of them")
    min_p: float = Field(
        0.0, ge=0, le=1, description="only tokens this likely, relative to the most likely one"
    )
    seed: int = Field(ge=0, le=2**63 - 1)
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = Field((), description="further tokens that end an answer")
    include_stop: bool = Field(
        False, description="the text includes the stop text or stop token that ends it"
    )
    min_tokens: int = Field(0, ge=0, description="generated before an answer may end or stop")
    n: int = Field(1, ge=1, le=128)
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="None: no log-probabilities; k: the chosen token and k best"
    )
    logit_bias: dict[int, float] = Field(
        default_factory=dict, description="added to the logit of a token, by its id"
    )
    frequency_penalty: float = Field(
        0.0, ge=-2, le=2, description="subtracted from a logit per occurrence of the token"
    )
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, description="subtracted from a logit once the token has occurred"
    )
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        description="a positive logit is divided by it, a negative one multiplied, if the token "
        "has occurred in the prompt or the answer",
    )
    score_prompt: bool = Field(
        False, description="also score each token of the prompt; needs top_logprobs"
    )
    structured_output: StructuredOutputSpec | None = Field(None, description="None: plain text")
    given_answer: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_GIVEN_ANSWER,
        description="forced tokens, to score them; none of them ends the answer, and their number "
        "replaces max_tokens",
    )
    ignore_eos: bool = Field(False, description="do not stop at an end token: generate max_tokens")

    @model_validator(mode="after")
    def _refuse_a_choice(self) -> "SamplingSpec":
        chooses = self.n > 1 or self.structured_output is not None
        stops = bool(self.stop or self.stop_token_ids)
        if self.given_answer is not None and (chooses or stops):
            raise ValueError("given_answer excludes n, structured_output, stop and stop_token_ids")
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
    serving: ServingSpec = Field(ADAPTER_FORM, description="how the adapter is served")
    prompt: Prompt
    sampling: SamplingSpec
    project: str = Field("", description="of the caller; the engine is fair between projects")
    background: bool = Field(
        False,
        description="of a batch: runs while no live request waits; a choice may be one delta",
    )


class TokenLogprob(Spec):
    """Natural-log probability of one token; `bytes` are its UTF-8 bytes."""

    token: str
    bytes: tuple[int, ...]
    logprob: float


class GeneratedToken(TokenLogprob):
    top: tuple[TokenLogprob, ...] = ()


class PromptToken(Spec):
    """A token of the prompt; the first one has no score. `bytes` are its UTF-8 bytes."""

    token: str
    bytes: tuple[int, ...]
    logprob: float | None
    top: tuple[TokenLogprob, ...] = ()


class GenerationStarted(Spec):
    type: Literal["started"] = "started"
    prompt_tokens: int
    hardware: str = ""
    """Hardware and precision: `cpu, fp32`."""
    precision: NumberFormat | None = None
    """Of the weights used; None if the engine does not report it."""
    prompt: tuple[PromptToken, ...] = ()
    """Empty unless the prompt is scored."""
    prompt_ids: tuple[int, ...] = ()
    """The token ids of the prompt; empty unless the answer was given."""


class GenerationDelta(Spec):
    """New text of one choice: complete characters, never part of a stop sequence."""

    type: Literal["delta"] = "delta"
    choice: int
    text: str
    reasoning: str = Field("", description="text that the template marks as reasoning")
    logprobs: tuple[GeneratedToken, ...] = ()
    completion_tokens: int = Field(0, description="tokens of the choice so far")


class ToolCalled(Spec):
    """A tool call at the end of a choice; the arguments are JSON."""

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

    def as_error(self) -> TunesmithError:
        """Return the error for whoever sent the request; one that names a field is theirs."""
        kind = TunesmithError if self.param is None else InvalidRequest
        return kind(self.message, param=self.param, code=self.code)


AnswerEvent = GenerationStarted | GenerationDelta | ToolCalled | ChoiceFinished
"""An event of an answer that has not failed."""

GenerationEvent = Annotated[AnswerEvent | GenerationFailed, Field(discriminator="type")]

generation_event_adapter: TypeAdapter[GenerationEvent] = TypeAdapter(GenerationEvent)
