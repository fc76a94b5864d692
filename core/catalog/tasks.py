"""What differs between tasks and is plain fact: one row for each."""

from dataclasses import dataclass

from core.spec.members import for_each
from core.spec.objective import Task


@dataclass(frozen=True)
class TaskFacts:
    """One task."""

    pipeline: str
    """The Hugging Face Hub's name for it."""
    model_class: str
    """Of transformers."""
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
