"""Judges that follow a script, for graders alone; the real ones are in the tests of the API."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.errors import TunesmithError
from core.spec.grader import PythonOutcome


class ScriptedJudges:
    """Answers every request with what a test gave, or raises it."""

    def __init__(
        self,
        answer: object = None,
        *,
        vectors: Mapping[str, list[float]] | TunesmithError | None = None,
        python: Callable[..., PythonOutcome] | TunesmithError | None = None,
        finish_reason: str = "stop",
        refusal: str | None = None,
    ) -> None:
        """An `answer` that is no text is sent as JSON; an error is raised."""
        self.bodies: list[Mapping[str, Any]] = []
        self.ran: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = []
        self._answer = answer
        self._vectors = vectors
        self._python = python
        self._finish_reason = finish_reason
        self._refusal = refusal

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        if isinstance(self._answer, Exception):
            raise self._answer
        text = self._answer if isinstance(self._answer, str) else json.dumps(self._answer)
        message = {"role": "assistant", "content": text, "refusal": self._refusal}
        return {
            "model": f"resolved-{body['model']}",
            "choices": [{"index": 0, "message": message, "finish_reason": self._finish_reason}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
        }

    async def embed(self, model: str | None, texts: Sequence[str]) -> list[list[float]]:
        assert model is None
        if isinstance(self._vectors, Exception):
            raise self._vectors
        assert isinstance(self._vectors, Mapping)
        return [self._vectors[text] for text in texts]

    async def run_python(
        self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> PythonOutcome:
        self.ran.append((source, sample, item))
        if isinstance(self._python, Exception):
            raise self._python
        assert callable(self._python)
        return self._python(sample, item)
