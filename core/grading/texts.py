"""The templates of a grader with their paths, and the graders within it."""

from collections.abc import Iterator
from typing import assert_never

from core.grading.answers import parts_of
from core.grading.result import GraderFailed
from core.spec.grader import (
    Grader,
    LabelModelGrader,
    MultiGrader,
    PythonGrader,
    ScoreModelGrader,
    SingleGrader,
    StringCheckGrader,
    TextSimilarityGrader,
)


def single_graders(grader: Grader, path: str) -> Iterator[tuple[str, SingleGrader]]:
    """Yield the graders that grade by themselves, each with its path: one, or those of a multi."""
    if isinstance(grader, MultiGrader):
        for key, each in grader.graders.items():
            yield f"{path}.graders.{key}", each
    else:
        yield path, grader


def templates_of(grader: Grader, path: str) -> Iterator[tuple[str, str]]:
    """Yield the templates of a grader, each with its path.

    A part of a message that is no text has none; `core.grading.validate` refuses it.
    """
    for place, each in single_graders(grader, path):
        match each:
            case StringCheckGrader() | TextSimilarityGrader():
                yield f"{place}.input", each.input
                yield f"{place}.reference", each.reference
            case ScoreModelGrader() | LabelModelGrader():
                yield from _in_messages(each, place)
            case PythonGrader():
                pass  # its source is no template
            case _:
                assert_never(each)


def _in_messages(
    grader: ScoreModelGrader | LabelModelGrader, path: str
) -> Iterator[tuple[str, str]]:
    for number, message in enumerate(grader.input):
        try:
            parts = parts_of(message.content)
        except GraderFailed:
            continue
        for inside, text in parts:
            yield f"{path}.input[{number}].content{inside}", text
