"""Parses rated answers: demonstrations with a `label`, which rates an answer good or bad.

With a `completion`, the label rates all of it; in a conversation, it rates the last message.
"""

from collections.abc import Callable

from core.datasets.chat import untrained
from core.datasets.demonstrations import parse_completion
from core.datasets.examples import ChatExample, RatedExample
from core.datasets.json_values import Row
from core.datasets.labels import parse_rating, rating_of
from core.datasets.row_errors import RowErrors


def has_rating(row: Row) -> bool:
    """Whether the row's label is a rating."""
    return rating_of(row["label"]) is not None


def parse_rated_completion(row: Row, errors: RowErrors) -> RatedExample:
    """Parse TRL's unpaired preferences: a completion that is rated good or bad."""
    is_good = parse_rating(row, errors)
    answer = parse_completion(row, errors)
    if isinstance(answer, ChatExample):
        _reject_weights(row["completion"], errors)
    return RatedExample(answer, is_good)


def rated(
    parse: Callable[[Row, RowErrors], ChatExample], key: str
) -> Callable[[Row, RowErrors], RatedExample]:
    """Return the parser of conversations under `key` whose last message is rated."""

    def parse_rated(row: Row, errors: RowErrors) -> RatedExample:
        is_good = parse_rating(row, errors)
        example = parse(row, errors)
        *earlier, last = example.messages or ({},)
        if last.get("weight") == 0:
            hint = "the label rates this message; remove the weight"
            errors.add(f"{key}[{len(row[key]) - 1}].weight", f"is 0; {hint}")
        return RatedExample(ChatExample((*untrained(tuple(earlier)), last), example.tools), is_good)

    return parse_rated


def _reject_weights(completion: object, errors: RowErrors) -> None:
    for index, message in enumerate(completion if isinstance(completion, list) else ()):
        if isinstance(message, dict) and message.get("weight") == 0:
            hint = "the label rates the whole completion; remove the weight"
            errors.add(f"completion[{index}].weight", f"is 0; {hint}")
