"""The rows with which a model without a job is compared with PEFT: short, and of every kind."""

import json
from pathlib import Path

from core.spec.objective import ClassificationSpec, ObjectiveSpec, Task

_PAIRS = (
    ("Name the capital of France.", "The capital of France is Paris."),
    ("What is 12 plus 30?", "12 plus 30 is 42."),
    ("Translate to German: good morning", "Guten Morgen"),
    ("Which module reads JSON in Python?", "The module `json` reads and writes JSON."),
    ("Write one line about the sea.", "The sea is wide, and its waves never rest."),
    ("List three colours.", "red, green, blue"),
    ("Is the number 17 prime? Answer yes or no.", "yes"),
    ("Summarize: The train was late because of snow.", "Snow delayed the train."),
)


def write_rows(path: Path, task: Task, objective: ObjectiveSpec, *, has_template: bool) -> None:
    """Write a dataset in the format of the task, on which the model can answer."""
    with path.open("w", encoding="utf-8") as file:
        for asked, answer in _PAIRS:
            file.write(json.dumps(_row(asked, answer, task, objective, has_template)) + "\n")


def _row(
    asked: str, answer: str, task: Task, objective: ObjectiveSpec, has_template: bool
) -> dict[str, object]:
    if isinstance(objective, ClassificationSpec):
        label = objective.labels[0]
        return (
            {"text": asked, "labels": [label]}
            if objective.multi_label
            else {"text": asked, "label": label}
        )
    if task == "generation" and has_template:
        turns = [("user", asked), ("assistant", answer)]
        return {"messages": [{"role": role, "content": text} for role, text in turns]}
    return {"prompt": asked, "completion": answer}
