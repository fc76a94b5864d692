"""OpenAI's older text completion object, which stream chunks share."""

import codecs
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, assert_never

from core.inference.answer import Answer, Chunks, Events, Usage
from core.inference.chat import LEAST_LOGPROB
from core.inference.plan import Plan
from core.spec.generation import (
    ChoiceFinished,
    GeneratedToken,
    GenerationDelta,
    GenerationStarted,
    PromptToken,
    TextPrompt,
    TokenLogprob,
    ToolCalled,
)


def text_completion(plan: Plan, answer: Answer, *, echo: bool) -> dict[str, Any]:
    n = plan.sampling.n
    choices = []
    for index, choice in enumerate(answer.choices):
        prompt = answer.prompts[index // n]
        text = prompt_text(plan, index // n, prompt) if echo else ""
        rows = TokenTable(plan).rows([*prompt, *choice.logprobs])
        choices.append(_choice(index, text + choice.text, rows, choice.finish_reason))
    return {**_frame(plan, choices), "usage": answer.usage.body()}


async def text_chunks(plan: Plan, events: Events, *, echo: bool) -> Chunks:
    """Yield the chunks of all choices: text and finish reason, then usage if requested."""
    n = plan.sampling.n
    tables = [TokenTable(plan) for _ in range(n * len(plan.requests))]
    prompt_tokens = completion_tokens = 0
    async with aclosing(events):
        async for request, event in events:
            match event:
                case GenerationStarted():
                    prompt_tokens += event.prompt_tokens
                    if echo:
                        text = prompt_text(plan, request, event.prompt)
                        for index in range(request * n, request * n + n):
                            rows = tables[index].rows(event.prompt) if event.prompt else None
                            yield _chunk(plan, _choice(index, text, rows, None))
                case GenerationDelta():
                    index = request * n + event.choice
                    rows = tables[index].rows(event.logprobs)
                    yield _chunk(plan, _choice(index, event.text, rows, None))
                case ChoiceFinished():
                    completion_tokens += event.completion_tokens
                    index = request * n + event.choice
                    yield _chunk(plan, _choice(index, "", None, event.finish_reason))
                case ToolCalled():
                    pass  # only a chat has tools
                case _:
                    assert_never(event)
    if plan.include_usage:
        usage = Usage(prompt_tokens, completion_tokens)
        yield {**_frame(plan, []), "usage": usage.body()}


def prompt_text(plan: Plan, request: int, scored: Sequence[PromptToken]) -> str:
    """Return the prompt of a request as text; tokens are decoded from the engine's bytes."""
    prompt = plan.requests[request].prompt
    if isinstance(prompt, TextPrompt):
        return prompt.text
    return b"".join(bytes(token.bytes) for token in scored).decode("utf-8", errors="replace")


class TokenTable:
    """Builds the four parallel lists of one choice's log-probabilities."""

    def __init__(self, plan: Plan) -> None:
        self._is_wanted = plan.sampling.top_logprobs is not None
        self._offset = 0
        # A character may span several tokens; it counts with the last of them.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def rows(self, tokens: Sequence[GeneratedToken | PromptToken]) -> dict[str, Any] | None:
        """Return the lists for the next tokens; `text_offset` is in characters of the choice.

        The first token of a prompt has no log-probability: it is null in both lists.
        """
        if not self._is_wanted:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(bytes(token.bytes)))
        return {
            "tokens": [_name(token) for token in tokens],
            "token_logprobs": [_logprob(token) for token in tokens],
            "top_logprobs": [_top_logprobs(token) for token in tokens],
            "text_offset": offsets,
        }


def _name(token: TokenLogprob | PromptToken) -> str:
    """Return the text of a token, or OpenAI's `bytes:\\xe2\\x80` if its bytes are no text.

    Parts of characters all have the same replacement character as text, so they would collide.
    """
    own_bytes = bytes(token.bytes)
    if own_bytes == token.token.encode():
        return token.token
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own_bytes)


def _top_logprobs(token: GeneratedToken | PromptToken) -> dict[str, float] | None:
    """Return the log-probabilities of a token and its alternatives, by name.

    Of tokens with the same bytes, only the most likely one is kept.
    """
    if token.logprob is None:
        return None
    by_name = {_name(token): max(token.logprob, LEAST_LOGPROB)}
    for other in token.top:
        name = _name(other)
        by_name[name] = max(other.logprob, by_name.get(name, LEAST_LOGPROB))
    return by_name


def _logprob(token: GeneratedToken | PromptToken | TokenLogprob) -> float | None:
    return None if token.logprob is None else max(token.logprob, LEAST_LOGPROB)


def _choice(
    index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _chunk(plan: Plan, choice: dict[str, Any]) -> dict[str, Any]:
    chunk = _frame(plan, [choice])
    if plan.include_usage:
        chunk["usage"] = None
    return chunk


def _frame(plan: Plan, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": plan.id,
        "object": "text_completion",
        "created": plan.created,
        "model": plan.model,
        "choices": choices,
    }
