"""Asks a model for an answer that follows a JSON schema, for the graders that use one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import TunesmithError, Unavailable
from core.grading.judges import Judges
from core.grading.result import ErrorFlag, Grade, GraderFailed, errors_of
from core.grading.sample import Sample
from core.grading.template import render
from core.spec.engine_protocol import EngineKeyRefused
from core.spec.grader import GraderMessage, LabelModelGrader, SamplingParams, ScoreModelGrader

TEXT_PARTS = ("input_text", "output_text", "text")
"""The types of parts of a message that models read here."""

ModelGrader = ScoreModelGrader | LabelModelGrader


@dataclass(frozen=True)
class Judgement:
    """The answer of a model grader, parsed or not."""

    messages: list[dict[str, Any]]
    completion: dict[str, Any]

    def result(self) -> Any:
        """Return the field `result` of the answer. Raises GraderFailed without one."""
        choice = self.completion["choices"][0]
        if refusal := choice["message"].get("refusal"):
            raise GraderFailed("model_grader_refusal_error", f"The model refused: {refusal}")
        if choice["finish_reason"] == "length":
            raise GraderFailed(
                "model_grader_parse_error",
                "The answer of the model ended before its result, at the limit of its tokens. "
                "Raise sampling_params.max_completions_tokens, or shorten the prompt.",
            )
        text = choice["message"].get("content") or ""
        try:
            return json.loads(text)["result"]
        except (ValueError, TypeError, LookupError, RecursionError):
            raise GraderFailed(
                "model_grader_parse_error",
                f"The answer of the model has no result in JSON: {text[:200]!r}",
            ) from None

    def grade(self, score: float, passed: bool) -> Grade:
        return self._grade(score, passed, {})

    def failed(self, failure: GraderFailed) -> Grade:
        """Return the result of an answer that cannot be used, which has cost its tokens."""
        return self._grade(0.0, False, errors_of(failure))

    def _grade(self, score: float, passed: bool, errors: dict[str, bool | str | None]) -> Grade:
        model = str(self.completion["model"])
        tokens = int((self.completion.get("usage") or {}).get("total_tokens", 0))
        return Grade(
            score,
            passed,
            errors,
            tokens_by_model={model: tokens},
            sampled_model=model,
            completions=({"messages": self.messages, "completion": self.completion},),
        )


async def ask(
    grader: ModelGrader,
    item: Mapping[str, Any],
    sample: Sample,
    judges: Judges,
    schema: Mapping[str, Any],
) -> Judgement:
    """Return the answer of the grader's model. Raises GraderFailed if there is none.

    Unavailable is raised as it is, because the same request may succeed later.
    """
    messages = [_rendered(message, item, sample) for message in grader.input]
    try:
        completion = await judges.complete(request_of(grader, messages, schema))
    except (Unavailable, EngineKeyRefused):
        raise
    except TunesmithError as error:
        flag: ErrorFlag = "model_grader_server_error"
        raise GraderFailed(flag, f"{error.message} ({error.code})") from None
    return Judgement(messages, completion)


def request_of(
    grader: ModelGrader, messages: list[dict[str, Any]], schema: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the body of the chat completion that asks for an answer of this schema."""
    named = {"name": "grade", "strict": True, "schema": dict(schema)}
    return {
        "model": grader.model,
        "messages": messages,
        "response_format": {"type": "json_schema", "json_schema": named},
        **_sampling(grader.sampling_params),
    }


def _sampling(params: SamplingParams) -> dict[str, Any]:
    given = params.model_dump(exclude_none=True)
    if "max_completions_tokens" in given:
        given["max_completion_tokens"] = given.pop("max_completions_tokens")
    return given


def _rendered(message: GraderMessage, item: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
    if isinstance(message.content, str):
        content: Any = render(message.content, item, sample)
    else:
        content = [
            {"type": "text", "text": render(text, item, sample)}
            for _, text in parts_of(message.content)
        ]
    return {"role": message.role, "content": content}


def parts_of(
    content: str | dict[str, Any] | tuple[str | dict[str, Any], ...],
) -> list[tuple[str, str]]:
    """Return the texts of a content, each with its path after `content`.

    Raises GraderFailed for a part that is not a text.
    """
    if isinstance(content, str):
        return [("", content)]
    if isinstance(content, dict):
        return [(".text", _text_of(content))]
    return [
        (f"[{number}]", part) if isinstance(part, str) else (f"[{number}].text", _text_of(part))
        for number, part in enumerate(content)
    ]


def _text_of(part: Mapping[str, Any]) -> str:
    text = part.get("text")
    if part.get("type") not in TEXT_PARTS or not isinstance(text, str):
        raise GraderFailed(
            "other_error",
            f"A part of a message is of type {str(part.get('type'))[:64]!r}. Models read text "
            "only: use {'type': 'input_text', 'text': …}.",
        )
    return text
