"""The events of one answer, and the whole answer once they have all arrived."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, assert_never

from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    FinishReason,
    GeneratedToken,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
    PromptToken,
    ToolCalled,
)


@dataclass(frozen=True)
class Usage:
    """Tokens of all prompts, each counted once, and of all choices."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0
    """The reasoning tokens of all choices."""

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.reasoning_tokens:
            body["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return body


@dataclass
class Choice:
    """One finished text."""

    text: str = ""
    reasoning: str = ""
    logprobs: list[GeneratedToken] = field(default_factory=list)
    tool_calls: list[ToolCalled] = field(default_factory=list)
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True)
class Answer:
    choices: Sequence[Choice]
    usage: Usage
    prompts: Sequence[tuple[PromptToken, ...]]
    """The scored prompt of each request, if requested."""


Events = AsyncGenerator[tuple[int, AnswerEvent], None]
"""Events, each with the index of its request."""

Chunks = AsyncGenerator[dict[str, Any], None]
"""The bodies of a stream's server-sent events."""


async def begun(events: Events) -> Events:
    """Wait for the first event, so that a refusal becomes a status; return all events."""
    first = await anext(events)

    async def all_of_them() -> Events:
        async with aclosing(events):
            yield first
            async for item in events:
                yield item

    return all_of_them()


async def collect(events: Events, requests: Sequence[GenerationRequest]) -> Answer:
    """Wait for all events. Choice c of request r has the index r * n + c."""
    per_request = requests[0].sampling.n
    choices = [Choice() for _ in range(per_request * len(requests))]
    prompts: list[tuple[PromptToken, ...]] = [()] * len(requests)
    prompt_tokens = completion_tokens = reasoning_tokens = 0
    async with aclosing(events):
        async for index, event in events:
            match event:
                case GenerationStarted():
                    prompt_tokens += event.prompt_tokens
                    prompts[index] = event.prompt
                case GenerationDelta():
                    choice = choices[index * per_request + event.choice]
                    choice.text += event.text
                    choice.reasoning += event.reasoning
                    choice.logprobs.extend(event.logprobs)
                case ToolCalled():
                    choices[index * per_request + event.choice].tool_calls.append(event)
                case ChoiceFinished():
                    choices[index * per_request + event.choice].finish_reason = event.finish_reason
                    completion_tokens += event.completion_tokens
                    reasoning_tokens += event.reasoning_tokens
                case _:
                    assert_never(event)
    return Answer(choices, Usage(prompt_tokens, completion_tokens, reasoning_tokens), prompts)
