"""The items of an output that are written piece by piece: messages and reasoning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.inference.responses.items import Item
from core.inference.responses.output import item_id, logprobs_of, text_part
from core.spec.generation import GeneratedToken
from core.spec.response import ResponsePlan

Event = dict[str, Any]
"""An event of a stream, without its number."""


@dataclass(frozen=True)
class TextForm:
    """Where the text of an item is, and the names of its events."""

    prefix: str
    """Of the item's id."""
    key: str
    """The field of the item with its parts, of which there is one."""
    part: str
    """The type of the part."""
    part_event: str
    text_event: str
    index: str
    """The field of the events with the index of the part."""


MESSAGE = TextForm("msg", "content", "output_text", "content_part", "output_text", "content_index")
REASONING = TextForm(
    "rs", "content", "reasoning_text", "content_part", "reasoning_text", "content_index"
)
SUMMARY = TextForm(
    "rs",
    "summary",
    "summary_text",
    "reasoning_summary_part",
    "reasoning_summary_text",
    "summary_index",
)


@dataclass
class TextItem:
    """One item, from `output_item.added` to `output_item.done`."""

    plan: ResponsePlan
    form: TextForm
    output_index: int
    text: str = ""
    logprobs: list[GeneratedToken] = field(default_factory=list)

    def begin(self) -> Iterator[Event]:
        yield self._item_event("added", self._item("in_progress", []))
        yield self._part_event("added", self._part("", ()))

    def write(self, text: str, logprobs: Sequence[GeneratedToken] = ()) -> Event:
        self.text += text
        self.logprobs.extend(logprobs)
        return self._text_event("delta", {"delta": text}, logprobs)

    def end(self, status: str) -> Iterator[Event]:
        """Yield the last events; the last of all has the complete item."""
        part = self._part(self.text, self.logprobs)
        yield self._text_event("done", {"text": self.text}, self.logprobs)
        yield self._part_event("done", part)
        yield self._item_event("done", self._item(status, [part]))

    def _item(self, status: str, parts: list[Item]) -> Item:
        id_ = item_id(self.plan, self.form.prefix, self.output_index)
        if self.form is MESSAGE:
            kind: Item = {"type": "message", "role": "assistant"}
        else:
            kind = {"type": "reasoning", "summary": [], "content": [], "encrypted_content": None}
        return {"id": id_, **kind, "status": status, self.form.key: parts}

    def _part(self, text: str, logprobs: Sequence[GeneratedToken]) -> Item:
        if self.form is MESSAGE:
            return text_part(text, logprobs)
        return {"type": self.form.part, "text": text}

    def _item_event(self, what: str, item: Item) -> Event:
        return {
            "type": f"response.output_item.{what}",
            "output_index": self.output_index,
            "item": item,
        }

    def _part_event(self, what: str, part: Item) -> Event:
        return {"type": f"response.{self.form.part_event}.{what}", **self._place(), "part": part}

    def _text_event(
        self, what: str, text: dict[str, str], logprobs: Sequence[GeneratedToken]
    ) -> Event:
        event = {"type": f"response.{self.form.text_event}.{what}", **self._place(), **text}
        return event | ({"logprobs": logprobs_of(logprobs)} if self.form is MESSAGE else {})

    def _place(self) -> Event:
        return {
            "item_id": item_id(self.plan, self.form.prefix, self.output_index),
            "output_index": self.output_index,
            self.form.index: 0,
        }
