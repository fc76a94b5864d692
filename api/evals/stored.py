"""Stored chat completions and responses as the items of a run, each with its answer.

`item` has `input` (the messages), `model` and `metadata`; `sample` is the answer that was given.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from sqlalchemy.orm import Session

from api.auth.caller import Caller
from api.evals.data_sources import StoredCompletions, StoredResponses
from core.evals.samples import completion_of_response, output_text
from core.inference.responses.messages import chat_messages
from core.records.responses import responses_for_items
from core.records.stored_completions import completions_for_items
from core.spec.evals import MAX_ITEMS

ANSWERED = ("completed", "incomplete")
"""Statuses of responses with an answer."""

Row = dict[str, Any]


def rows_of_completions(
    session: Session, caller: Caller, source: StoredCompletions, metadata: Mapping[str, str]
) -> Iterator[Row]:
    """Yield the newest completions that the source selects, with `metadata` of the eval."""
    found = completions_for_items(
        session,
        caller.project,
        model=source.model,
        metadata={**metadata, **(source.metadata or {})},
        created_after=source.created_after,
        created_before=source.created_before,
        limit=source.limit or MAX_ITEMS,
    )
    for stored in found:
        body = stored.body
        item: Row = {"input": stored.messages, "model": stored.model}
        item["metadata"] = stored.user_metadata or {}
        if "tools" in body:
            item["tools"] = body["tools"]
        text = body["choices"][0]["message"].get("content") or ""
        sample = {"model": body["model"], "choices": body["choices"], "output_text": text}
        yield {"item": item, "sample": sample}


def rows_of_responses(
    session: Session, caller: Caller, source: StoredResponses, metadata: Mapping[str, str]
) -> Iterator[Row]:
    """Yield the newest responses that the source selects, with `metadata` of the eval."""
    wanted = {**metadata, **(source.metadata or {})}
    found = responses_for_items(
        session,
        caller.project,
        created_after=source.created_after,
        created_before=source.created_before,
    )
    selected = (stored for stored in found if _is_selected(stored.body, source, wanted))
    for stored in islice(selected, MAX_ITEMS):
        body = stored.body
        item = {
            "input": chat_messages(body.get("instructions"), stored.items),
            "model": body["model"],
            "metadata": body.get("metadata") or {},
        }
        choices = completion_of_response(body)["choices"]
        sample = {"model": body["model"], "choices": choices, "output_text": output_text(body)}
        yield {"item": item, "sample": sample}


def _is_selected(
    body: Mapping[str, Any], source: StoredResponses, metadata: Mapping[str, str]
) -> bool:
    if body["status"] not in ANSWERED:
        return False
    for name in ("model", "temperature", "top_p"):
        wanted = getattr(source, name)
        if wanted is not None and body.get(name) != wanted:
            return False
    effort = (body.get("reasoning") or {}).get("effort")
    if source.reasoning_effort is not None and effort != source.reasoning_effort:
        return False
    text = source.instructions_search
    if text is not None and text not in (body.get("instructions") or ""):
        return False
    if source.users is not None and body.get("user") not in source.users:
        return False
    names = {tool.get("name") for tool in body.get("tools") or ()}
    if source.tools is not None and not names & set(source.tools):
        return False
    return metadata.items() <= (body.get("metadata") or {}).items()
