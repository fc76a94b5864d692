"""OpenAI's chat completion object and its stream chunks."""

from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, assert_never

from core.inference.answer import Answer, Choice, Chunks, Events, Usage
from core.inference.plan import Plan
from core.records.ids import new_id
from core.spec.generation import (
    ChoiceFinished,
    FinishReason,
    GeneratedToken,
    GenerationDelta,
    GenerationStarted,
    TokenLogprob,
    ToolCalled,
)

LEAST_LOGPROB = -9999.0  # OpenAI's value for the least likely tokens


def chat_completion(plan: Plan, answer: Answer) -> dict[str, Any]:
    return {
        "id": plan.id,
        "object": "chat.completion",
        "created": plan.created,
        "model": plan.model,
        "choices": [_choice(plan, index, each) for index, each in enumerate(answer.choices)],
        "usage": answer.usage.body(),
    }


async def chat_chunks(plan: Plan, events: Events) -> Chunks:
    """Yield the chunks of all choices: role, text and finish reason, then usage if requested."""
    prompt_tokens = completion_tokens = reasoning_tokens = 0
    calls: Counter[int] = Counter()
    async with aclosing(events):
        async for _, event in events:
            match event:
                case GenerationStarted():
                    prompt_tokens = event.prompt_tokens
                    for index in range(plan.sampling.n):
                        yield _chunk(plan, index, {"role": "assistant", "content": ""})
                case GenerationDelta():
                    logprobs = _logprobs(plan, event.logprobs)
                    yield _chunk(plan, event.choice, _delta(event), logprobs=logprobs)
                case ToolCalled():
                    index = calls[event.choice]
                    calls[event.choice] += 1
                    if not (plan.one_call and index):
                        yield _chunk(plan, event.choice, _call_delta(plan, event, index))
                case ChoiceFinished():
                    completion_tokens += event.completion_tokens
                    reasoning_tokens += event.reasoning_tokens
                    reason = _finish_reason(plan, event.finish_reason)
                    yield _chunk(plan, event.choice, {}, finish_reason=reason)
                case _:
                    assert_never(event)
    if plan.include_usage:
        usage = Usage(prompt_tokens, completion_tokens, reasoning_tokens)
        yield _chunk_around(plan, [], usage)


def _delta(event: GenerationDelta) -> dict[str, Any]:
    """Return the delta; `reasoning_content` is vLLM's name for reasoning."""
    if not event.reasoning:
        return {"content": event.text}
    delta = {"reasoning_content": event.reasoning}
    return delta | ({"content": event.text} if event.text else {})


def _choice(plan: Plan, index: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        message["content"] = choice.text.strip() or None
        message |= _calls(plan, choice.tool_calls)
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(plan, choice.logprobs),
        "finish_reason": _finish_reason(plan, choice.finish_reason),
    }


def _finish_reason(plan: Plan, reason: FinishReason) -> str:
    return "function_call" if plan.has_functions and reason == "tool_calls" else reason


def _calls(plan: Plan, calls: Sequence[ToolCalled]) -> dict[str, Any]:
    """Return the calls of a message under `tool_calls`, or the older `function_call`."""
    if plan.has_functions:
        return {"function_call": _function(calls[0])}
    return {"tool_calls": [_tool_call(call) for call in calls[: 1 if plan.one_call else None]]}


def _call_delta(plan: Plan, call: ToolCalled, index: int) -> dict[str, Any]:
    if plan.has_functions:
        return {"function_call": _function(call)}
    return {"tool_calls": [{"index": index, **_tool_call(call)}]}


def _tool_call(call: ToolCalled) -> dict[str, Any]:
    return {"id": new_id("call"), "type": "function", "function": _function(call)}


def _function(call: ToolCalled) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments}


def _chunk(
    plan: Plan,
    index: int,
    delta: dict[str, Any],
    *,
    logprobs: dict[str, Any] | None = None,
    finish_reason: str | None = None,
) -> dict[str, Any]:
    choice = {
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }
    return _chunk_around(plan, [choice], None)


def _chunk_around(plan: Plan, choices: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
    chunk = {
        "id": plan.id,
        "object": "chat.completion.chunk",
        "created": plan.created,
        "model": plan.model,
        "choices": choices,
    }
    if plan.include_usage:
        chunk["usage"] = None if usage is None else usage.body()
    return chunk


def _logprobs(plan: Plan, tokens: Sequence[GeneratedToken]) -> dict[str, Any] | None:
    if plan.sampling.top_logprobs is None:
        return None
    content = [
        {**_token(token), "top_logprobs": [_token(other) for other in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.token,
        "logprob": max(token.logprob, LEAST_LOGPROB),
        "bytes": list(token.bytes),
    }
