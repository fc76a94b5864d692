"""OpenAI's objects of stored chat completions."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from api.metadata import Metadata

CompletionObject = dict[str, Any]
"""As it was answered, with parameters of the request and its metadata."""


class UpdateCompletion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    metadata: Metadata | None


class CompletionsPage(BaseModel):
    object: Literal["list"] = "list"
    data: list[CompletionObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class MessagesPage(BaseModel):
    """The messages of a request, each with an id."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedCompletion(BaseModel):
    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: Literal[True] = True
