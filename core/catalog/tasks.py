"""The facts of each task, one row for each."""

from dataclasses import dataclass

from core.spec.members import for_each
from core.spec.objective import Task


@dataclass(frozen=True)
class TaskFacts:
    """One task."""

    pipeline: str
    """Its name on the Hugging Face Hub."""
    model_class: str
    """The class in transformers."""
    answers_messages: bool


TASKS: dict[str, TaskFacts] = for_each(
    Task,
    {
        "generation": TaskFacts("text-generation", "AutoModelForCausalLM", True),
        "seq2seq": TaskFacts("text2text-generation", "AutoModelForSeq2SeqLM", True),
        "classification": TaskFacts(
            "text-classification", "AutoModelForSequenceClassification", False
        ),
    },
)
