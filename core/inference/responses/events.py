"""Turns the events of an engine into those of a response, and into the response at the end.

The order is OpenAI's: `response.created`, `response.in_progress`, then for each item
`output_item.added`, its parts and texts, `output_item.done`, and one last event with the response.
"""

from contextlib import aclosing
from typing import Any, assert_never

from core.errors import TunesmithError
from core.inference.answer import Chunks, Events
from core.inference.responses.items import Item
from core.inference.responses.output import (
    Status,
    failure_of,
    item_id,
    response_object,
    usage_object,
)
from core.inference.responses.text_items import (
    MESSAGE,
    REASONING,
    SUMMARY,
    Event,
    TextForm,
    TextItem,
)
from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    GeneratedToken,
    GenerationDelta,
    GenerationStarted,
    ToolCalled,
)
from core.spec.response import ResponsePlan

LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})


async def response_events(plan: ResponsePlan, events: Events) -> Chunks:
    """Yield all events of a response; an error of the engine becomes the last of them."""
    writer = ResponseWriter(plan)
    try:
        async for event in written_events(writer, events):
            yield event
    except TunesmithError as error:
        for event in writer.failing(error):
            yield event


async def written_events(writer: "ResponseWriter", events: Events) -> Chunks:
    """Yield all events of a response; raises the errors of the engine."""
    for event in (*writer.opening(), *writer.starting()):
        yield event
    async with aclosing(events):
        async for _, each in events:
            for event in writer.add(each):
                yield event
    for event in writer.closing():
        yield event


async def respond(plan: ResponsePlan, events: Events) -> dict[str, Any]:
    """Wait for all events and return the response; raises the errors of the engine."""
    writer = ResponseWriter(plan)
    async with aclosing(events):
        async for _, each in events:
            writer.add(each)
    response: dict[str, Any] = writer.closing()[-1]["response"]
    return response


class ResponseWriter:
    """Writes one response. Each method returns the next events, in order and numbered."""

    def __init__(self, plan: ResponsePlan) -> None:
        self._plan = plan
        self._events: list[Event] = []
        self._number = 0
        self._output: list[Item] = []
        self._open: TextItem | None = None
        self._blank = ""
        """White space before a text, which is dropped if a call follows instead."""
        self._unsent: list[GeneratedToken] = []
        """Tokens whose text has not been sent."""
        self._started: GenerationStarted | None = None
        self._finished: ChoiceFinished | None = None

    def opening(self) -> list[Event]:
        """Return the events of a response that waits."""
        status: Status = "queued" if self._plan.frame["background"] else "in_progress"
        self._add_state("created", status)
        if status == "queued":
            self._add_state("queued", status)
        return self._taken()

    def starting(self) -> list[Event]:
        """Return the event of a response that an engine works on."""
        self._add_state("in_progress", "in_progress")
        return self._taken()

    def add(self, event: AnswerEvent) -> list[Event]:
        match event:
            case GenerationStarted():
                self._started = event
            case GenerationDelta():
                self._write(event)
            case ToolCalled():
                self._call(event)
            case ChoiceFinished():
                self._finished = event
            case _:
                assert_never(event)
        return self._taken()

    def closing(self) -> list[Event]:
        """Return the end of the open item, and the last event, with the response."""
        is_cut = self._finished is not None and self._finished.finish_reason == "length"
        is_in_reasoning = self._open is not None and self._open.form is not MESSAGE
        if not (self._has_call or self._is_in_message or (is_cut and is_in_reasoning)):
            self._write_text(self._blank)
        status: Status = "incomplete" if is_cut else "completed"
        self._end(status)
        self._add_state(status, status, usage=usage_object(self._started, self._finished))
        return self._taken()

    def failing(self, error: TunesmithError) -> list[Event]:
        """Return the end of the open item, and the event of the failure, with the output so far."""
        self._end("incomplete")
        self._add_state("failed", "failed", error=failure_of(error))
        return self._taken()

    @property
    def _has_call(self) -> bool:
        return any(item["type"] == "function_call" for item in self._output)

    @property
    def _is_in_message(self) -> bool:
        return self._open is not None and self._open.form is MESSAGE

    def _write(self, delta: GenerationDelta) -> None:
        if delta.reasoning:
            wants_summary = self._plan.frame["reasoning"]["summary"] is not None
            self._add(
                self._text_item(SUMMARY if wants_summary else REASONING).write(delta.reasoning)
            )
        if delta.text or not delta.reasoning:
            self._unsent.extend(delta.logprobs)
        if self._is_in_message or delta.text.strip():
            self._write_text(self._blank + delta.text)
        else:
            self._blank += delta.text

    def _write_text(self, text: str) -> None:
        if not text and self._is_in_message:
            return  # the logprobs of a token without text go with the next text
        self._add(self._text_item(MESSAGE).write(text, self._unsent))
        self._blank, self._unsent = "", []

    def _text_item(self, form: TextForm) -> TextItem:
        """Return the open item of this form; end another one, and begin it if necessary."""
        if self._open is None or self._open.form is not form:
            self._end("completed")
            self._open = TextItem(self._plan, form, len(self._output))
            self._add(*self._open.begin())
        return self._open

    def _call(self, call: ToolCalled) -> None:
        """Write a call, which is complete. Without parallel calls, only the first one counts."""
        if self._has_call and not self._plan.frame["parallel_tool_calls"]:
            return
        self._end("completed")
        index = len(self._output)
        item = {
            "id": item_id(self._plan, "fc", index),
            "type": "function_call",
            "status": "completed",
            "call_id": item_id(self._plan, "call", index),
            "name": call.name,
            "arguments": call.arguments,
        }
        begun = {**item, "status": "in_progress", "arguments": ""}
        place = {"item_id": item["id"], "output_index": index}
        kind = "response.function_call_arguments"
        done = {**place, "name": call.name, "arguments": call.arguments}
        self._add(
            {"type": "response.output_item.added", "output_index": index, "item": begun},
            {"type": f"{kind}.delta", **place, "delta": call.arguments},
            {"type": f"{kind}.done", **done},
            {"type": "response.output_item.done", "output_index": index, "item": item},
        )
        self._output.append(item)

    def _end(self, status: str) -> None:
        """End the open item, if there is one."""
        if self._open is None:
            return
        if self._unsent and self._is_in_message:
            self._add(self._open.write("", self._unsent))
            self._unsent = []
        *events, done = self._open.end(status)
        self._add(*events, done)
        self._output.append(done["item"])
        self._open = None

    def _add_state(self, what: str, status: Status, **fields: Any) -> None:
        response = response_object(self._plan, status, self._output, **fields)
        self._add({"type": f"response.{what}", "response": response})

    def _add(self, *events: Event) -> None:
        for event in events:
            self._events.append({**event, "sequence_number": self._number})
            self._number += 1

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events
