"""`truncation: "auto"`: leaves out the oldest messages until the conversation fits."""

import json
import re
from collections.abc import Callable, Sequence

from core.errors import InvalidRequest, TunesmithError
from core.inference.answer import Events, begun
from core.inference.responses.messages import Message
from core.spec.generation import GenerationRequest
from core.spec.response import ResponsePlan

SHARE = 1 / 16
"""The part of the text that one round leaves out, at least one message."""

_FIELDS = {
    "messages": "input",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
}
"""The fields of a body, by their names in a chat, which engines use."""

Run = Callable[[Sequence[GenerationRequest]], Events]
"""Runs engine requests."""


async def begun_response(plan: ResponsePlan, run: Run) -> Events:
    """Wait for the first event of an engine, and return all events.

    Raises the engine's refusal, which names fields of the body. A conversation that is too long is
    shortened if the body allows it: only an engine knows how many tokens it has.
    """
    while True:
        try:
            return await begun(run(plan.requests))
        except TunesmithError as error:
            is_too_long = error.code == "context_length_exceeded"
            shorter = shortened(plan) if is_too_long else None
            if shorter is None:
                raise _renamed(error) from None
            plan = shorter


def shortened(plan: ResponsePlan) -> ResponsePlan | None:
    """Return the plan without its oldest messages; None if it may not be shortened further.

    The system message and everything from the last message of the user on are kept. The first
    message after the system message is one of the user.
    """
    if plan.frame["truncation"] != "auto":
        return None
    messages = plan.prompt.messages
    first = 1 if messages[0]["role"] == "system" else 0
    users = [index for index, each in enumerate(messages) if each["role"] == "user"]
    starts = [index for index in users if index > first]
    if not starts:
        return None
    sizes = [len(json.dumps(message)) for message in messages]
    enough = sum(sizes) * SHARE
    start = next((each for each in starts if sum(sizes[first:each]) >= enough), starts[-1])
    return _with_messages(plan, (*messages[:first], *messages[start:]))


def _with_messages(plan: ResponsePlan, messages: tuple[Message, ...]) -> ResponsePlan:
    prompt = plan.prompt.model_copy(update={"messages": messages})
    return plan.model_copy(update={"request": plan.request.model_copy(update={"prompt": prompt})})


def _renamed(error: TunesmithError) -> TunesmithError:
    """Return a refusal with the name that the field has in a body."""
    field = re.split(r"[.\[]", error.param or "", maxsplit=1)[0]
    if not isinstance(error, InvalidRequest) or field not in _FIELDS:
        return error
    return InvalidRequest(error.message, param=_FIELDS[field], code=error.code)
