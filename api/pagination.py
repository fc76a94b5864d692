"""OpenAI's lists."""

from collections.abc import Callable
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel

from core.records.pages import Page
from core.records.tables import Table


class ListItem(BaseModel):
    """An object in lists."""

    id: str


Row = TypeVar("Row", bound=Table)
Item = TypeVar("Item", bound=ListItem)

After = Annotated[str | None, Query(description="id of the last object of the previous page")]
Limit = Annotated[int, Query(ge=1, le=100)]


class ListOf(BaseModel, Generic[Item]):
    """A page. `first_id` and `last_id` are null if it is empty."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    first_id: str | None
    last_id: str | None


def list_of(page: Page[Row], shown: Callable[[Row], Item]) -> ListOf[Item]:
    """Return a page of rows, each converted by `shown`."""
    data = [shown(row) for row in page.rows]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return ListOf(data=data, has_more=page.has_more, first_id=first, last_id=last)
