"""The chat template of a tokenizer: renders a conversation into the prompt of the next answer.

Messages come from `core/datasets/chat.py` and are converted to the input format of the template. A
conversation is rejected if the template omits a part of it, because the user would not notice.
Control tokens written in messages are replaced by placeholders (`control_tokens.py`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import _compile_jinja_template

from core.batching.control_tokens import ControlTokens
from core.batching.omissions import after_marker, marked_conversation, omitted, parts_of, shape_of
from core.batching.template_input import InputFormat, Message, find_input_format

_FAILURES = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""The exceptions that a template may raise for messages that it does not support."""

_MAX_SHAPES = 4096


class Unrenderable(Exception):
    """The chat template cannot render the messages; `field` is the path of the failing part."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Omission(Unrenderable):
    """The chat template omits a part of the messages."""


@dataclass(frozen=True)
class TemplateContext:
    """The inputs of a chat template besides the conversation."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    """The `chat_template_kwargs`, such as enable_thinking."""
    time: float | None = None
    """Unix seconds, in UTC, for templates that render the date; None means now."""


NO_CONTEXT = TemplateContext()
"""No variables, and the current time."""


@dataclass
class _Source:
    """One template source of a tokenizer and its cached properties."""

    text: str
    control: ControlTokens
    special_tokens: dict[str, Any]
    format: InputFormat = field(default_factory=InputFormat)
    memory: dict[bytes, Any] = field(default_factory=dict)
    """Cached properties, by digest of the key."""


_sources: "WeakKeyDictionary[PreTrainedTokenizerFast, dict[str, _Source]]" = WeakKeyDictionary()


class ChatTemplate:
    """The chat template of a tokenizer with one context."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, context: TemplateContext = NO_CONTEXT
    ) -> None:
        self.tokenizer = tokenizer
        self._context = context
        self._variables_key = json.dumps(dict(self._context.variables), sort_keys=True)

    @property
    def thinking_is_off(self) -> bool:
        """Whether the job or the request turned reasoning off."""
        variables = self._context.variables
        named = (variables.get("enable_thinking"), variables.get("thinking"))
        return False in named or variables.get("reasoning_effort") == "none"

    def prompt(self, messages: Sequence[Message], tools: Sequence[Message] = ()) -> str:
        """Return the prompt: the text that precedes the assistant's answer.

        Unrenderable if the model has no template, or if it rejects the messages or omits a part.
        """
        source = self.source(tools)
        hidden, hidden_tools = source.control.hide(messages), source.control.hide(tools)
        text = self.prompt_of_hidden(hidden, hidden_tools)
        path = omitted(parts_of(hidden, hidden_tools), text)
        if path := path or self._omitted_by_shape(source, messages, tools):
            raise leaves_out(path)
        return text

    def prompt_of_hidden(self, messages: Sequence[Message], tools: Sequence[Message]) -> str:
        """Return a prompt without checks; control tokens in the messages are already hidden."""
        text = self.render(messages, tools, prompting=True)
        return text + self._missing_header(messages, tools)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] = (),
        *,
        prompting: bool = False,
    ) -> str:
        """Return the rendered text; Unrenderable if the template rejects the messages."""
        source = self.source(tools)
        return self._rendered(source, source.format, messages, tools, prompting=prompting)

    def _rendered(
        self,
        source: _Source,
        format_: InputFormat,
        messages: Sequence[Message],
        tools: Sequence[Message],
        *,
        prompting: bool,
    ) -> str:
        values: dict[str, Any] = {
            **source.special_tokens,
            **_known_variables(source.text, self._context.variables),
            "messages": format_.messages(messages),
            "tools": format_.tools(tools) or None,
            "documents": None,
            "add_generation_prompt": prompting,
        }
        if self._context.time is not None:
            values["strftime_now"] = datetime.fromtimestamp(self._context.time, UTC).strftime
        try:
            rendered: str = _compile_jinja_template(source.text).render(**values)
        except _FAILURES as problem:
            raise Unrenderable(f"the chat template rejects the messages: {problem}") from problem
        return rendered

    def source(self, tools: Sequence[Message] = ()) -> _Source:
        """Return the template source for a conversation with or without tools."""
        if not self.tokenizer.chat_template:
            raise Unrenderable(
                "the base model has no chat template; use prompt and completion instead of "
                "messages, or a base model tuned for chat"
            )
        text: str = self.tokenizer.get_chat_template(None, list(tools) or None)
        known = _sources.setdefault(self.tokenizer, {})
        if (source := known.get(text)) is None:
            control = ControlTokens.of_template(self.tokenizer, text)
            source = _Source(text, control, dict(self.tokenizer.special_tokens_map))
            # without this request's variables, because other requests share the source
            source.format = find_input_format(partial(ChatTemplate(self.tokenizer)._tried, source))
            known[text] = source
        return source

    def remembered(self, tools: Sequence[Message], key: Any, find: Any) -> Any:
        """Return `find()`, cached by key, template and variables.

        The cache stores digests, because keys may be as long as conversations.
        """
        memory = self.source(tools).memory
        digest = blake2b(repr((self._variables_key, key)).encode(), digest_size=16).digest()
        if digest not in memory:
            if len(memory) >= _MAX_SHAPES:
                memory.clear()
            memory[digest] = find()
        return memory[digest]

    def _tried(
        self,
        source: _Source,
        format_: InputFormat,
        messages: Sequence[Message],
        tools: Sequence[Message],
    ) -> str | None:
        try:
            return self._rendered(source, format_, messages, tools, prompting=False)
        except Unrenderable:
            return None

    def _missing_header(self, messages: Sequence[Message], tools: Sequence[Message]) -> str:
        """Return the header before an answer if the template ignores add_generation_prompt.

        White space alone is part of the answer, as in `[/INST] Hello`.
        """

        def find() -> str:
            marked, marked_tools = marked_conversation(messages, tools)
            answer = {"role": "assistant", "content": "an_answer"}
            try:
                text = self.render(marked, marked_tools, prompting=True)
                if text != self.render(marked, marked_tools):
                    return ""
                whole = self.render([*marked, answer], marked_tools)
            except Unrenderable:
                return ""
            written = after_marker(whole.partition("an_answer")[0])
            end = after_marker(text)
            header = written.removeprefix(end) if written.startswith(end) else ""
            return header if header.strip() else ""

        last = shape_of(messages[-1:], tools)
        found: str = self.remembered(tools, ("header", last), find)
        return found

    def _omitted_by_shape(
        self, source: _Source, messages: Sequence[Message], tools: Sequence[Message]
    ) -> str | None:
        """Return the part that the template omits from every conversation of this shape."""

        def find() -> str | None:
            marked, marked_tools = marked_conversation(messages, tools)
            try:
                text = self.prompt_of_hidden(marked, marked_tools)
            except Unrenderable:  # it may accept the real messages only
                return None
            return omitted(parts_of(marked, marked_tools), text)

        found: str | None = self.remembered(tools, ("prompt", shape_of(messages, tools)), find)
        return found


def leaves_out(path: str) -> Omission:
    """Return the error for a part that the template omits."""
    if path.startswith("tools"):
        path = "tools"  # none of the tools is rendered
        what, hint = "does not support tools", "use a base model trained to call tools"
    elif "tool_calls" in path:
        what, hint = f"omits {path}", "use a base model trained to call tools"
    elif "reasoning" in path:
        what = f"omits {path}"
        hint = "set chat_template_kwargs.enable_thinking to true, or remove the reasoning"
    else:
        what = f"omits or rewrites {path}"
        hint = "move this text to a separate message, or use another base model"
    return Omission(f"the chat template of the base model {what}; {hint}", path)


def _known_variables(source: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables, with reasoning_effort converted for this template."""
    known = dict(variables)
    effort = known.get("reasoning_effort")
    if effort is None or "reasoning_effort" in source:
        return known
    del known["reasoning_effort"]
    if "enable_thinking" in source:
        known.setdefault("enable_thinking", effort != "none")
    elif effort != "none":
        raise Unrenderable(
            "the chat template of this model does not support reasoning_effort; remove it",
            "reasoning_effort",
        )
    return known
