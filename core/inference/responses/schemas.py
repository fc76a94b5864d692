"""The body of POST /v1/responses. Null means the same as a missing field.

The items of `input` are parsed by `core.inference.responses.items`, which names the invalid one.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from core.inference.responses.built_in_tools import refuse_built_in_tools
from core.inference.schemas import (
    MAX_FIELDS,
    MAX_TOOLS,
    Body,
    Effort,
    FunctionName,
    JsonObjectFormat,
    Limit,
    ModelName,
    NamedJsonSchema,
    TextFormat,
    _at_most,
)
from core.spec.ids import ResponseId
from core.spec.numbers import Flag, Integer, Number

MAX_ITEMS = 2048
"""In one request, with the items of the previous responses."""

Include = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]
"""All but the last have no effect: they are about built-in tools, images and encryption."""

Summary = Literal["auto", "concise", "detailed"]


class Reasoning(Body):
    effort: Effort | None = None
    summary: Summary | None = None
    """Any of them: the reasoning itself, under `summary` instead of `content`."""
    generate_summary: Summary | None = None
    """The older name of `summary`."""
    mode: object = None
    context: object = None


class ResponseSchemaFormat(NamedJsonSchema):
    """The fields of a chat's `json_schema`, without the object around them."""

    type: Literal["json_schema"]


TextFormatChoice = Annotated[
    TextFormat | JsonObjectFormat | ResponseSchemaFormat, Field(discriminator="type")
]


class TextOptions(Body):
    format: TextFormatChoice | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseStreamOptions(Body):
    include_obfuscation: Flag | None = None
    """Accepted and ignored."""


class FunctionTool(Body):
    """A function. `strict` is not rendered in prompts, since clients set it in every request."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Flag | None = None
    output_schema: dict[str, Any] | None = None
    defer_loading: Flag | None = None
    allowed_callers: object = None


class NamedTool(Body):
    """A function, by its name, in a `tool_choice`."""

    type: Literal["function"]
    name: FunctionName


class AllowedTools(Body):
    """The functions of `tools` that may be called, or of which one must be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS)]


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedTools


class ResponseBody(Body):
    """`CreateResponse`."""

    model: ModelName | None = None
    """Optional if the service has a default model."""
    input: str | Annotated[list[dict[str, Any]], Field(fail_fast=True, max_length=MAX_ITEMS)] = ""
    instructions: str | None = None
    previous_response_id: (
        Annotated[ResponseId, Field(max_length=255, pattern=r"^[^\x00]*$")] | None
    ) = None
    stream: Flag | None = None
    stream_options: ResponseStreamOptions | None = None
    background: Flag | None = None
    store: Flag | None = None
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: Flag | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    include: list[Include] | None = None
    top_logprobs: Annotated[Integer, Field(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    max_output_tokens: Limit | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    metadata: Annotated[dict[str, str], _at_most(MAX_FIELDS)] | None = None
    # Refused unless they are null; `refusals` says why.
    conversation: object = None
    prompt: object = None
    context_management: object = None
    moderation: object = None
    background_options: object = None
    image: object = None
    # These are accepted and ignored; the answer repeats some of them.
    max_tool_calls: Integer | None = None
    user: str | None = None
    safety_identifier: Annotated[str, Field(max_length=64)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: object = None
    prompt_cache_retention: object = None
    service_tier: object = None
    access_programs: object = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_built_in_tools(cls, value: object) -> object:
        refuse_built_in_tools(value)
        return value

    @property
    def format(self) -> TextFormat | JsonObjectFormat | ResponseSchemaFormat:
        """The format of the text, plain by default."""
        return (self.text and self.text.format) or TextFormat(type="text")
