"""Detects the tool-call format of a chat template.

Every family has its own format. The template renders known calls; each candidate format that fits
the text is tried, and the first one that parses all calls is used.
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
    """Return the tool-call format; None if it is not recognized."""
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
    """Return whether a format parses exactly the known calls from an answer."""
    tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    text = answers.text(turn)
    marker = format_.frame.marker
    start = text.find(marker) if marker else 0
    if start < 0:
        return False
    read = read_calls(format_, text[start:], tools)
    found = [(call.name, json.loads(call.arguments)) for call in read.calls]
    return found == [*calls] and not read.text.strip()
