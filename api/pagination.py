"""OpenAI's lists."""

from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel

Item = TypeVar("Item")

After = Annotated[str | None, Query(description="id of the last object of the previous page")]
Limit = Annotated[int, Query(ge=1, le=100)]


class ListOf(BaseModel, Generic[Item]):
    """A page. `first_id` and `last_id` are null when it is empty."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    first_id: str | None
    last_id: str | None


def list_of(data: list[Item], ids: list[str], *, has_more: bool) -> ListOf[Item]:
    """Return a page of objects whose ids are `ids`."""
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return ListOf(data=data, has_more=has_more, first_id=first, last_id=last)
