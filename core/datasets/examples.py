"""The kinds of training example, independent of the layout of the row."""

from dataclasses import dataclass

from core.datasets.json_values import JsonObject


@dataclass(frozen=True)
class ChatExample:
    """A conversation. Assistant messages are trained on unless their `weight` is 0."""

    messages: tuple[JsonObject, ...]
    tools: tuple[JsonObject, ...] = ()


@dataclass(frozen=True)
class CompletionExample:
    """Plain text without a chat template: `completion` is trained on, given `prompt`."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class PreferenceExample:
    """Two different answers to one prompt; `chosen` is the better one.

    Both are complete examples of the same kind with the same prompt, and only their answers are
    trained on: conversations whose earlier assistant messages have weight 0, or plain texts.
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
    """Plain text; every token is trained on."""

    text: str


@dataclass(frozen=True)
class LabelExample:
    """A text with its one label, or with `multi` all labels that apply, possibly none."""

    text: str
    labels: tuple[str, ...]
    multi: bool


Example = (
    ChatExample | CompletionExample | PreferenceExample | RatedExample | TextExample | LabelExample
)
