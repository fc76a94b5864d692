"""The usage so far in each chunk of a stream, as in vLLM."""

from collections.abc import Callable
from contextlib import aclosing
from typing import assert_never

from core.inference.answer import Chunks, Events, Usage
from core.inference.plan import Plan
from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    GenerationDelta,
    GenerationStarted,
    ToolCalled,
)


def chunks_with_usage(
    plan: Plan, events: Events, chunks_of: Callable[[Plan, Events], Chunks]
) -> Chunks:
    """Return the chunks of a stream; each has the usage so far if the plan says so."""
    return _counted(plan, events, chunks_of) if plan.continuous_usage else chunks_of(plan, events)


async def _counted(
    plan: Plan, events: Events, chunks_of: Callable[[Plan, Events], Chunks]
) -> Chunks:
    count = _Count()
    async with aclosing(chunks_of(plan, count.passing(events))) as chunks:
        async for chunk in chunks:
            yield {**chunk, "usage": count.usage().body()}


class _Count:
    """Counts the tokens of events that pass through. A choice counts all tokens generated."""

    def __init__(self) -> None:
        self._prompts = self._reasoning = 0
        self._answers: dict[tuple[int, int], int] = {}
        """By request and choice."""

    async def passing(self, events: Events) -> Events:
        async with aclosing(events):
            async for request, event in events:
                self._add(request, event)
                yield request, event

    def usage(self) -> Usage:
        return Usage(self._prompts, sum(self._answers.values()), self._reasoning)

    def _add(self, request: int, event: AnswerEvent) -> None:
        match event:
            case GenerationStarted():
                self._prompts += event.prompt_tokens
            case GenerationDelta():
                self._answers[request, event.choice] = event.completion_tokens
            case ChoiceFinished():
                self._answers[request, event.choice] = event.completion_tokens
                self._reasoning += event.reasoning_tokens
            case ToolCalled():
                pass  # its tokens are in the last event of the choice
            case _:
                assert_never(event)
