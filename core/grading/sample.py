"""What a grader looks at: an answer of a model, as the `sample` of templates and of Python."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One answer. Its fields have OpenAI's names."""

    output_text: str
    output_json: Any = None
    """The text as JSON; None if it is not JSON."""
    output_tools: tuple[dict[str, Any], ...] = ()
    """The tool calls, as in a chat completion."""
    choices: tuple[dict[str, Any], ...] = ()
    """As in a chat completion."""

    @property
    def is_json(self) -> bool:
        """Return whether the text is JSON; `null` is, and is None in `output_json`."""
        return self.output_json is not None or self.output_text.strip() == "null"

    def namespace(self) -> dict[str, Any]:
        """Return the variables of `sample`."""
        return {
            "output_text": self.output_text,
            "output_json": self.output_json,
            "output_tools": list(self.output_tools),
            "choices": list(self.choices),
        }


def sample_of_text(text: str) -> Sample:
    """Return the sample of a bare text, as `model_sample` of a graders' request gives it."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return Sample(text, _json(text), (), (choice,))


def sample_of_completion(completion: Mapping[str, Any]) -> Sample:
    """Return the sample of a chat completion's first choice."""
    message = completion["choices"][0]["message"]
    text = message.get("content") or ""
    calls = tuple(message.get("tool_calls") or ())
    return Sample(text, _json(text), calls, tuple(completion["choices"]))


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which JSON does not have."""
    raise ValueError(constant)
