"""The words for each format of a dataset in messages."""

from dataclasses import dataclass

from core.spec.dataset import DatasetFormat
from core.spec.members import for_each


@dataclass(frozen=True)
class FormatFacts:
    """One format."""

    holds: str
    """The contents of such a file, in the plural."""
    keys: str
    """The keys of its rows."""


_DEMONSTRATIONS = FormatFacts(
    "demonstrations",
    "rows with 'messages', with 'instruction' and 'output', or with 'prompt' and 'completion'",
)

FORMATS: dict[str, FormatFacts] = for_each(
    DatasetFormat,
    {
        "chat": _DEMONSTRATIONS,
        "prompt-completion": _DEMONSTRATIONS,
        "instruction": _DEMONSTRATIONS,
        "preference": FormatFacts(
            "preferences",
            "rows with 'input', 'preferred_output' and 'non_preferred_output', or with 'prompt', "
            "'chosen' and 'rejected'",
        ),
        "unpaired-preference": FormatFacts(
            "rated answers",
            "rows with 'prompt' and 'completion' or with 'messages', and a 'label' of true or "
            "false",
        ),
        "text": FormatFacts("plain text", "rows with 'text'"),
        "classification": FormatFacts("labelled texts", "rows with 'text' and 'label'"),
    },
)
