"""The prompts of a distillation as rows: from lines with an `item`, or from a dataset."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.datasets.eval_items import item_rows
from core.datasets.read import read_examples
from core.spec.distillation import PromptsSpec
from core.verdict.questions import item_of, question_of

Row = Mapping[str, Any]


def prompt_rows(path: Path, prompts: PromptsSpec) -> Iterator[Row]:
    """Yield a row for each prompt, with `item` and perhaps `sample`, an answer that it has.

    The item of a row of a dataset is what graders of jobs see, too. It is empty without an answer.
    """
    if not prompts.is_dataset:
        yield from item_rows(path)
        return
    for line, example in read_examples(path, prompts.columns):
        question = question_of(line, example)
        item = {} if question is None else dict(item_of(question))
        if item and not item["messages"]:
            item["messages"] = [{"role": "user", "content": item["prompt"]}]
        yield {"item": item}
