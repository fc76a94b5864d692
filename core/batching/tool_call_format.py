"""How a chat template writes tool calls.

Every family has a way of its own. It is found by letting the template write calls that are known:
each way that could have made the text is tried, and the first one that reads all of them back is
taken.
"""

import json
from collections.abc import Sequence

from core.batching.coded_tokens import CodedTokens
from core.batching.probe import TOOLS, Call
from core.batching.section import Section
from core.batching.tool_call_candidates import candidates
from core.batching.tool_call_probes import ONE, ProbedAnswers, Written
from core.batching.tool_calls import ToolCallFormat, read_calls
from core.batching.turns import Turn


def tool_call_format(
    written: Written, control: CodedTokens, ends: tuple[str, ...], reasoning: Section | None
) -> ToolCallFormat | None:
    """Return how calls are written; None when that is not understood."""
    if written.one is None:
        return None
    answers = ProbedAnswers(written, control, ends, reasoning)
    best, most = None, 0
    for format_ in candidates(answers):
        readable = sum(_reads_back(format_, answers, calls, turn) for calls, turn in answers.all)
        if _reads_back(format_, answers, ONE, written.one) and readable > most:
            best, most = format_, readable
    return best


def _reads_back(
    format_: ToolCallFormat, answers: ProbedAnswers, calls: Sequence[Call], turn: Turn
) -> bool:
    """Whether a format finds in an answer just the calls that were written there."""
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    text = answers.text(turn)
    marker = format_.frame.marker
    start = text.find(marker) if marker else 0
    if start < 0:
        return False
    read = read_calls(format_, text[start:], tools)
    found = [(call.name, json.loads(call.arguments)) for call in read.calls]
    return found == [*calls] and not read.text.strip()
