"""How a chat template writes answers, found by letting it write some that are known."""

import re
from collections.abc import Iterable, Iterator

from transformers import PreTrainedTokenizerFast

from core.batching.coded_tokens import CodedTokens
from core.batching.probe import NAMES, REASONING, TEXT, answer_with
from core.batching.section import Section
from core.batching.template import ChatTemplate
from core.batching.thoughts import THINK, own_marks
from core.batching.tool_call_format import ONE, Written, tool_call_format
from core.batching.turn_format import TurnFormat
from core.batching.turns import Turn

_END_OF_PROMPT = 80
_REASONED = {"reasoning_content": REASONING}


def turn_format(tokenizer: PreTrainedTokenizerFast) -> TurnFormat:
    """Return how the chat template of a tokenizer writes an answer; plain text without one."""
    template = ChatTemplate(tokenizer)
    plain = answer_with(template, TEXT)
    if plain is None or TEXT not in plain.answer:
        return TurnFormat(CodedTokens({}))
    thought = _thought(template)
    written = Written.by(template)
    turns = [turn for turn in (plain, thought, *written.turns) if turn is not None]
    special = special_tokens(tokenizer)
    control = CodedTokens.found_in(_texts(turns), special)
    ends = tuple(special)
    reasoning, content = _sections(plain, thought, control, ends)
    if reasoning is None:
        reasoning = _section_before_calls(template, written, control)
    if reasoning is None:
        reasoning = _think_section(tokenizer, plain.prompt, control)
    calls = tool_call_format(written, control, ends, reasoning)
    writes = own_marks(template) is not None or thought is None
    return TurnFormat(control, reasoning, content, calls, writes, _before_calls(written))


def _texts(turns: Iterable[Turn]) -> Iterator[str]:
    """Yield the answers, and the ends of their prompts, which may open the reasoning."""
    for turn in turns:
        yield turn.answer
        yield turn.prompt[-_END_OF_PROMPT:]


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the ids of the tokens that have no text of their own, by their names."""
    ids = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    added = tokenizer.added_tokens_decoder.items()
    return ids | {token.content: id_ for id_, token in added if token.special}


def _thought(template: ChatTemplate) -> Turn | None:
    """Return an answer with reasoning, if the template shows any."""
    turn = answer_with(template, TEXT, parts=_REASONED)
    shown = turn is not None and REASONING in turn.answer and TEXT in turn.answer
    return turn if shown else None


def _sections(
    plain: Turn, thought: Turn | None, control: CodedTokens, ends: tuple[str, ...]
) -> tuple[Section | None, Section]:
    """Return what stands around reasoning and text."""
    before, _, after = control.coded(plain.answer).partition(TEXT)
    closing = without_end(after, control, ends)
    if thought is None:
        return None, Section(_without_thinking(before), closing)
    opening, _, rest = control.coded(thought.answer).partition(REASONING)
    between, _, after = rest.partition(TEXT)
    closing = without_end(after, control, ends)
    if not opening.strip():
        opening = _last_tag(control.coded(thought.prompt))
    end = between.removesuffix(before)
    if before.strip() and between.endswith(before) and end.strip():
        return Section(opening, end), Section(before, closing)
    return Section(opening, between), Section("" if before.strip() else before, closing)


def _section_before_calls(
    template: ChatTemplate, written: Written, control: CodedTokens
) -> Section | None:
    """Return what stands around reasoning where a template shows it beside calls only."""
    turn = answer_with(template, "", ONE, _REASONED) if written.one else None
    if turn is None or REASONING not in turn.answer or written.one is None:
        return None
    before_name = written.one.answer.partition(NAMES[0])[0]
    opening, _, rest = turn.answer.partition(REASONING)
    between = rest.partition(NAMES[0])[0]
    if not (opening.strip() and before_name and between.endswith(before_name)):
        return None
    return Section(control.coded(opening), control.coded(between.removesuffix(before_name)))


def _without_thinking(before: str) -> str:
    """Take an empty block of reasoning off what stands before a text."""
    _, closed, rest = before.rpartition(THINK.closing)
    return rest.lstrip() if closed else before


def _last_tag(prompt: str) -> str:
    """Return the tag or control token that a prompt ends with, and the word after it."""
    found = re.search(r"(?:<[^<>\n]*>|[\udc00-\udfef])\w*\s*$", prompt)
    return found[0] if found else ""


def _think_section(
    tokenizer: PreTrainedTokenizerFast, prompt: str, control: CodedTokens
) -> Section | None:
    """Return the usual pair of tags where the template or its prompt knows of them."""
    source = tokenizer.get_chat_template()
    if THINK.closing not in source and not prompt.rstrip().endswith(THINK.opening):
        return None
    return Section(control.coded(f"{THINK.opening}\n"), control.coded(THINK.end))


def _before_calls(written: Written) -> str:
    """Return the white space between a text and the first call after it."""
    if written.content is None:
        return ""
    _, found, after = written.content.answer.partition(TEXT)
    space = after[: len(after) - len(after.lstrip())]
    return space if found and NAMES[0] in after else ""


def without_end(text: str, control: CodedTokens, ends: tuple[str, ...]) -> str:
    """Return what closes a part, without the token that ends the turn."""
    spelled = control.decoded(text).rstrip()
    for end in sorted(ends, key=len, reverse=True):
        if end and spelled.endswith(end):
            return control.coded(spelled.removesuffix(end)).strip()
    return control.coded(spelled).strip()
