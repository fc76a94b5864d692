"""What graders need beside the answer: models and a sandbox, which the API and workers provide."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from core.spec.grader import PythonOutcome


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
