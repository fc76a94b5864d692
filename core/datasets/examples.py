"""The kinds of example that training sees, whatever form a row had."""

from dataclasses import dataclass

from core.datasets.json_values import JsonObject


@dataclass(frozen=True)
class ChatExample:
    """A conversation. Assistant messages are trained unless their `weight` is 0."""

    messages: tuple[JsonObject, ...]
    tools: tuple[JsonObject, ...] = ()


@dataclass(frozen=True)
class CompletionExample:
    """Plain text: `completion` is trained, `prompt` only conditions it; no chat template."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class PreferenceExample:
    """Two different answers to one prompt, of which `chosen` is the better one.

    Both are whole examples of the same kind, beginning with the same prompt and trained on the
    answer alone: conversations whose earlier assistant messages have weight 0, or plain texts.
    """

    chosen: ChatExample | CompletionExample
    rejected: ChatExample | CompletionExample


@dataclass(frozen=True)
class RatedExample:
    """An answer to a prompt, and whether it is a good one.

    The answer alone is trained, as in a `PreferenceExample`.
    """

    answer: ChatExample | CompletionExample
    is_good: bool


@dataclass(frozen=True)
class TextExample:
    """Plain text that is trained from beginning to end."""

    text: str


@dataclass(frozen=True)
class LabelExample:
    """A text and its label, or with `multi` all labels that hold of it, perhaps none."""

    text: str
    labels: tuple[str, ...]
    multi: bool


Example = (
    ChatExample | CompletionExample | PreferenceExample | RatedExample | TextExample | LabelExample
)
