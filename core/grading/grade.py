"""Grades one answer: the score, whether it passes, and what went wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.grading.sample import Sample
from core.spec.grader import Grader, PythonOutcome


class Judges(Protocol):
    """What graders need beside the answer. Errors of the service are `TunesmithError`s."""

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the chat completion of a body; its `model` may be any that the owner may ask."""
        ...

    async def embed(self, model: str | None, texts: Sequence[str]) -> list[list[float]]:
        """Return an embedding per text; `model` None: the encoder base of the service."""
        ...

    async def run_python(
        self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> PythonOutcome:
        """Run `grade(sample, item)` of `source` in the sandbox."""
        ...


@dataclass(frozen=True)
class Grade:
    """The result of a grader. `score` is 0 when there is an error."""

    score: float
    passed: bool
    """The score reaches the grader's threshold; without one, it is at least 1 (text similarity and
    scores of models: at least half of the range)."""
    errors: dict[str, bool | str | None] = field(default_factory=dict)
    """OpenAI's flags that are set, by name, with details: `sample_parse_error`, …"""
    sub_scores: dict[str, float] = field(default_factory=dict)
    """Of a multi grader, by key."""
    tokens_by_model: dict[str, int] = field(default_factory=dict)
    """Tokens that model graders used."""
    sampled_model: str | None = None
    completions: tuple[dict[str, Any], ...] = ()
    """The answers of model graders, with their prompts."""


async def grade(grader: Grader, item: Mapping[str, Any], sample: Sample, judges: Judges) -> Grade:
    """Score one answer. An error of the grader is in the result; one of the service is raised.

    `Unavailable` is raised, so that the caller can ask again later.
    """
    raise NotImplementedError
