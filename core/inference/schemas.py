"""The request bodies of both generation routes.

Every field of OpenAI's API is accepted. A field for an unsupported feature must have its neutral
value; `core.inference.refusals` lists these fields.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from core.inference.sampling import ConstraintText, SamplingFields
from core.inference.variants import usual_choice, usual_format
from core.spec.ids import ModelId
from core.spec.numbers import Flag, Integer, Number
from core.spec.template import TemplateVariables

MAX_TOKENS = 1_000_000
MAX_MESSAGES = 2048
MAX_TOOLS = 128
MAX_BIASED_TOKENS = 1024
MAX_PROMPTS = 256
MAX_FIELDS = 96
"""More fields than any object of the API has."""


def _at_most(limit: int) -> BeforeValidator:
    """Reject a large object with one error, before its entries are validated."""

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > limit:
            raise ValueError(f"it has {len(value)} entries; at most {limit} are allowed")
        return value

    return BeforeValidator(check)


TokenId = Annotated[Integer, Field(ge=0, le=2**31 - 1)]
Text = Annotated[str, Field(min_length=1)]
StopText = Annotated[str, Field(min_length=1, max_length=1024)]
BiasedToken = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
Bias = Annotated[Number, Field(ge=-100, le=100)]
Biases = Annotated[dict[BiasedToken, Bias], _at_most(MAX_BIASED_TOKENS)]
ModelName = Annotated[ModelId, Field(max_length=512, pattern=r"^[^\x00]*$")]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Limit = Annotated[Integer, Field(ge=1, le=MAX_TOKENS)]


class Body(BaseModel):
    """An object that allows only the fields of its class."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _limit_fields(cls, value: object) -> object:
        """Report thousands of unknown fields as one error."""
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            raise ValueError(f"it has {len(value)} fields; at most {MAX_FIELDS} are allowed")
        return value


class StreamOptions(Body):
    include_usage: Flag = False
    include_obfuscation: Flag = False
    """Accepted and ignored."""
    continuous_usage_stats: Flag = False
    """As in vLLM: with `include_usage`, every chunk has the usage so far."""


class GenerationBody(Body, SamplingFields):
    """The common fields of both routes. Null means the same as a missing field."""

    model: ModelName | None = None
    """Optional if the service has a default model."""
    max_tokens: Limit | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    seed: Annotated[Integer, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    n: Annotated[Integer, Field(ge=1, le=128)] | None = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    logit_bias: Biases | None = None
    user: str | None = None
    ignore_eos: Flag | None = None
    """As in vLLM: generate `max_tokens` tokens and ignore end tokens."""
    reasoning_effort: Effort | None = None
    """Passed to the chat template. A completion has none, and ignores it."""
    # These are accepted and ignored.
    metadata: Annotated[dict[str, str], _at_most(MAX_FIELDS)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: object = None
    prompt_cache_retention: object = None
    safety_identifier: str | None = None
    service_tier: object = None
    store: Flag | None = None


class TextFormat(Body):
    type: Literal["text"]


class JsonObjectFormat(Body):
    type: Literal["json_object"]


class NamedJsonSchema(Body):
    """A JSON schema, always enforced, with and without `strict`. The name is ignored."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: Flag | None = None


class JsonSchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: NamedJsonSchema


class RegexFormat(Body):
    """Of Together; OpenAI has no such format."""

    type: Literal["regex"]
    pattern: ConstraintText


class GrammarFormat(Body):
    """Of Fireworks; OpenAI has no such format."""

    type: Literal["grammar"]
    grammar: ConstraintText


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat | GrammarFormat,
    Field(discriminator="type"),
]


FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class Function(Body):
    """Forced calls always match the parameters' schema, with and without `strict`."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Flag | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function
    cache_control: object = Field(None, exclude=True)
    """Of Anthropic, sent by LiteLLM and OpenRouter's clients; ignored."""


class ChosenFunction(Body):
    name: FunctionName


class ChosenTool(Body):
    type: Literal["function"]
    function: ChosenFunction


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: Annotated[list[ChosenTool], Field(fail_fast=True, min_length=1, max_length=MAX_TOOLS)]


class AllowedToolsChoice(Body):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _choice_type(value: object) -> str | None:
    """Return the type of a tool choice: a mode (a text), or that of an object."""
    if isinstance(value, str):
        return "mode"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return {"function": "one tool", "allowed_tools": "some tools"}.get(str(kind))


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("mode")]
    | Annotated[ChosenTool, Tag("one tool")]
    | Annotated[AllowedToolsChoice, Tag("some tools")],
    Discriminator(
        _choice_type,
        custom_error_type="tool_choice",
        custom_error_message="use 'none', 'auto', 'required', or an object of type 'function' or "
        "'allowed_tools'",
    ),
]


class ChatBody(GenerationBody):
    """`CreateChatCompletionRequest`. The engine parses the messages with the training code."""

    messages: Annotated[
        list[dict[str, Any]], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)
    ]
    max_completion_tokens: Limit | None = None
    logprobs: Flag | None = None
    top_logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: Annotated[ToolChoice | None, BeforeValidator(usual_choice)] = None
    parallel_tool_calls: Flag | None = None
    response_format: Annotated[ResponseFormat | None, BeforeValidator(usual_format)] = None
    modalities: object = None
    audio: object = None
    moderation: object = None
    web_search_options: object = None
    functions: Annotated[list[Function], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    """The older form of `tools`; the answer then has the older form of calls."""
    function_call: Literal["none", "auto"] | ChosenFunction | None = None
    chat_template_kwargs: TemplateVariables | None = None
    """As in vLLM: variables of the chat template."""
    best_of: object = None
    """Of vLLM; it must be 1."""
    # These are accepted and ignored.
    prediction: object = None
    verbosity: Literal["low", "medium", "high"] | None = None


def prompt_type(value: object) -> str:
    """Return the type of prompt by its first item, so that a long list is validated only once."""
    if not isinstance(value, list):
        return "text"
    match value[:1]:
        case [str()]:
            return "texts"
        case [list()]:
            return "token lists"
        case _:
            return "tokens"


TokenIds = Annotated[list[TokenId], Field(fail_fast=True, min_length=1)]
Prompt = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[Text], Field(fail_fast=True, max_length=MAX_PROMPTS), Tag("texts")]
    | Annotated[TokenIds, Tag("tokens")]
    | Annotated[list[TokenIds], Field(fail_fast=True, max_length=MAX_PROMPTS), Tag("token lists")],
    Discriminator(prompt_type),
]


class CompletionBody(GenerationBody):
    """`CreateCompletionRequest`."""

    prompt: Prompt
    max_tokens: Annotated[Integer, Field(ge=0, le=MAX_TOKENS)] | None = None
    best_of: Annotated[Integer, Field(ge=0, le=20)] | None = None
    echo: Flag | None = None
    logprobs: Annotated[Integer, Field(ge=0, le=5)] | None = None
    suffix: str | None = None
