"""The data sources of runs in requests: where items come from, and how answers are sampled."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.metadata import Metadata
from core.spec.evals import MAX_ITEMS, InputMessages
from core.spec.ids import FileId
from core.spec.numbers import Integer, Number

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
Time = Annotated[Integer, Field(ge=0, le=2**53)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Row(_Body):
    item: dict[str, Any]
    sample: dict[str, Any] | None = None


class FileContent(_Body):
    type: Literal["file_content"] = "file_content"
    content: Annotated[list[Row], Field(fail_fast=True, min_length=1, max_length=MAX_ITEMS)]


class FileReference(_Body):
    type: Literal["file_id"] = "file_id"
    id: Annotated[FileId, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


class StoredCompletions(_Body):
    """Chat completions of this service that were stored (`store`)."""

    type: Literal["stored_completions"] = "stored_completions"
    metadata: Metadata | None = None
    model: ModelName | None = None
    created_after: Time | None = None
    created_before: Time | None = None
    limit: Annotated[Integer, Field(ge=1, le=MAX_ITEMS)] | None = None


class StoredResponses(_Body):
    """Stored responses of this service."""

    type: Literal["responses"]
    metadata: Metadata | None = None
    model: ModelName | None = None
    instructions_search: Annotated[str, StringConstraints(max_length=4096)] | None = None
    created_after: Time | None = None
    created_before: Time | None = None
    reasoning_effort: str | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    users: Annotated[list[str], Field(max_length=100)] | None = None
    tools: Annotated[list[str], Field(max_length=100)] | None = None


RowSource = Annotated[FileContent | FileReference, Field(discriminator="type")]


class JsonlDataSource(_Body):
    """Rows that have the answers, or need none."""

    type: Literal["jsonl"]
    source: RowSource


class ChatSampling(_Body):
    """Fields of a chat completion, which checks them."""

    reasoning_effort: str | None = None
    temperature: Number | None = None
    max_completion_tokens: Integer | None = None
    top_p: Number | None = None
    seed: Integer | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None


class CompletionsDataSource(_Body):
    """Answers of a chat model."""

    type: Literal["completions"]
    source: Annotated[FileContent | FileReference | StoredCompletions, Field(discriminator="type")]
    input_messages: InputMessages | None = None
    sampling_params: ChatSampling | None = None
    model: ModelName | None = None


class TextOptions(_Body):
    format: dict[str, Any] | None = None


class ResponseSampling(_Body):
    """Fields of a response, which checks them. A response has no seed; it is ignored."""

    reasoning_effort: str | None = None
    temperature: Number | None = None
    max_completion_tokens: Integer | None = None
    top_p: Number | None = None
    seed: Integer | None = None
    text: TextOptions | None = None
    tools: list[dict[str, Any]] | None = None


class ResponsesDataSource(_Body):
    """Answers of /v1/responses."""

    type: Literal["responses"]
    source: Annotated[FileContent | FileReference | StoredResponses, Field(discriminator="type")]
    input_messages: InputMessages | None = None
    sampling_params: ResponseSampling | None = None
    model: ModelName | None = None


DataSource = Annotated[
    JsonlDataSource | CompletionsDataSource | ResponsesDataSource, Field(discriminator="type")
]
