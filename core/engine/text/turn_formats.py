"""How the answer to a prompt is written, and so parsed."""

from dataclasses import replace

from core.batching.turn_format import PLAIN_TURN, TurnFormat
from core.engine.text.served_model import ServedModel
from core.spec.generation import ChatPrompt, Prompt


def turn_format_of(prompt: Prompt, model: ServedModel) -> TurnFormat | None:
    """Return how answers to a prompt are parsed; None for plain text."""
    if not isinstance(prompt, ChatPrompt) or model.vocabulary.tokenizer.chat_template is None:
        return None
    format_ = model.vocabulary.turn_format
    if not prompt.tools:
        format_ = replace(format_, calls=None)
    return None if format_.is_plain else format_


def continues_message(prompt: Prompt) -> bool:
    return isinstance(prompt, ChatPrompt) and prompt.ending == "final_message"


def format_after(prompt: Prompt, model: ServedModel) -> TurnFormat:
    """Return the format that structured output has after a prompt."""
    if not isinstance(prompt, ChatPrompt):
        return PLAIN_TURN
    format_ = model.vocabulary.turn_format
    if continues_message(prompt):  # which has opened the text
        return replace(format_, content=replace(format_.content, opening=""))
    return format_
