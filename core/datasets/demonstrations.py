"""Parses demonstrations: conversations, instructions, and prompts with completions."""

from core.datasets.chat import (
    parse_conversation,
    parse_messages,
    require_answer,
    untrained,
    with_system,
)
from core.datasets.examples import ChatExample, CompletionExample
from core.datasets.json_values import JsonObject, Row
from core.datasets.reasoning import assistant_message
from core.datasets.row_errors import RowErrors, describe
from core.datasets.sharegpt import alternating, parse_conversations, with_wrapped_tools
from core.datasets.tools import Calls, parse_tools, parse_written_calls


def parse_chat(row: Row, errors: RowErrors) -> ChatExample:
    """Parse OpenAI's conversations."""
    parallel = row.get("parallel_tool_calls", False)
    if not isinstance(parallel, bool):
        errors.add("parallel_tool_calls", f"{describe(parallel)}; use true or false")
    return ChatExample(parse_messages(row, errors), parse_tools(with_wrapped_tools(row), errors))


def parse_sharegpt(row: Row, errors: RowErrors) -> ChatExample:
    """Parse the conversations of ShareGPT, or others under its key."""
    return ChatExample(*parse_conversations(row, errors))


def parse_alternating(row: Row, errors: RowErrors) -> ChatExample:
    """Parse UltraChat's older layout: a list of texts, user and assistant in turn."""
    messages = alternating(row["data"], "data", errors)
    require_answer(messages, errors, "data")
    return ChatExample(messages)


def alternates(row: Row) -> bool:
    """Whether `data` is a list of texts."""
    texts = row["data"]
    return isinstance(texts, list) and bool(texts) and isinstance(texts[0], str)


def parse_query(row: Row, errors: RowErrors) -> ChatExample:
    """Parse a question with the tool calls that answer it, as in xLAM's dataset."""
    question = {"role": "user", "content": errors.text(row, "query")}
    calls = parse_written_calls(row["answers"], "answers", Calls(), errors)
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    return ChatExample((question, answer), parse_tools(with_wrapped_tools(row), errors))


def parse_instruction(row: Row, errors: RowErrors) -> ChatExample:
    """Parse Alpaca's layout."""
    return _answered(row, "input", "output", errors)


def parse_response(row: Row, errors: RowErrors) -> ChatExample:
    """Parse Dolly's layout."""
    return _answered(row, "context", "response", errors)


def _answered(row: Row, context: str, answer: str, errors: RowErrors) -> ChatExample:
    question = instruction_of(row, context, errors)
    reply = assistant_message(errors.text(row, answer))
    return ChatExample(
        with_system(row, ({"role": "user", "content": question}, reply), answer, errors)
    )


def instruction_of(row: Row, context: str, errors: RowErrors) -> str:
    """Return the instruction, with the text under `context` after a blank line if there is one."""
    question = errors.text(row, "instruction")
    if context in row and (more := errors.text(row, context, empty=True)):
        question += "\n\n" + more
    return question


def parse_completion(row: Row, errors: RowErrors) -> ChatExample | CompletionExample:
    """Parse plain texts, or messages; only the completion is trained on."""
    prompt, completion = row.get("prompt"), row.get("completion")
    if not (isinstance(prompt, list) or isinstance(completion, list) or "system" in row):
        text = errors.text(row, "prompt", empty=True)
        return CompletionExample(text, errors.text(row, "completion"))
    calls = Calls()
    before = _side(prompt, "prompt", "user", calls, errors)
    after = _side(completion, "completion", "assistant", calls, errors)
    require_answer(after, errors, "completion")
    return ChatExample(
        with_system(row, untrained(before), "prompt", errors) + after,
        parse_tools(with_wrapped_tools(row), errors),
    )


def _side(
    value: object, where: str, role: str, calls: Calls, errors: RowErrors
) -> tuple[JsonObject, ...]:
    """Return a prompt or completion as messages; a text becomes one message of `role`."""
    messages = [{"role": role, "content": value}] if isinstance(value, str) else value
    if not isinstance(messages, list) or not messages:
        errors.add(where, f"{describe(value)}; write a list of messages, as for the other key")
        errors.stop()
    return parse_conversation(messages, errors, where, calls)
