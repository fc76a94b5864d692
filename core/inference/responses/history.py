"""The conversation of a request: the items of earlier responses, then those of its input."""

import re

from sqlalchemy.orm import Session

from core.errors import InvalidRequest, NotFound
from core.inference.responses.items import Item, given_items, references
from core.inference.responses.schemas import MAX_ITEMS, ResponseBody
from core.records.responses import find_output_items, get_response
from core.spec.ids import ProjectId, ResponseId

_OURS = re.compile(r"(msg|fc|fco|rs)_[A-Za-z0-9]{24,26}", re.ASCII)
"""An id that this service has given to an item."""


def read_items(session: Session, project: ProjectId, body: ResponseBody) -> list[Item]:
    """Return the items that the model reads, oldest first.

    An item of an earlier response that the client has sent once more is read once. Raises
    InvalidRequest for an invalid item, an unknown id, and for too many items.
    """
    earlier: list[Item] = []
    if body.previous_response_id is not None:
        earlier = _conversation(session, project, body.previous_response_id)
    known = {item["id"]: item for item in earlier}
    named = find_output_items(session, project, set(references(body.input)) - known.keys())
    given = given_items(body.input, known | named)
    new = [item for item in given if not (item["id"] in known and _OURS.fullmatch(item["id"]))]
    if len(earlier) + len(new) > MAX_ITEMS:
        raise InvalidRequest(
            f"The conversation has {len(earlier) + len(new)} items; at most {MAX_ITEMS} are "
            "allowed. Begin a new one.",
            param="input",
            code="invalid_value",
        )
    return [*earlier, *new]


def _conversation(session: Session, project: ProjectId, id_: ResponseId) -> list[Item]:
    """Return the items that a stored response has read and written."""
    try:
        previous = get_response(session, project, id_, with_items=True)
    except NotFound:
        raise InvalidRequest(
            f"Previous response with id {id_!r} not found. It may have expired, or was not stored.",
            param="previous_response_id",
            code="previous_response_not_found",
        ) from None
    if not previous.is_finished:
        raise InvalidRequest(
            f"The response {id_!r} is not finished. Wait until it is.",
            param="previous_response_id",
            code="previous_response_not_finished",
        )
    return [*previous.items, *previous.body["output"]]
