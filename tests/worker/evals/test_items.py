"""What an item of a run does while its graders have to wait."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from core.errors import Unavailable
from core.spec.grader import PythonOutcome
from worker.evals import items


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_python_grader_waits_for_a_sandbox_that_has_no_room(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "PAUSES_SECONDS", (0.01, 0.01))
    left = [Unavailable("Too many graders wait.", code="sandbox_unavailable")] * failures

    async def run_python(
        source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> PythonOutcome:
        if left:
            raise left.pop()
        return PythonOutcome(score=1.0)

    judges = items._ItemJudges(cast(Any, None), run_python, [])
    if failures <= 2:
        assert asyncio.run(judges.run_python("", {}, {})).score == 1.0
    else:
        with pytest.raises(Unavailable):
            asyncio.run(judges.run_python("", {}, {}))
