"""Variables of chat templates, as jobs and requests give them: `chat_template_kwargs`."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

SECONDS_A_DAY = 86_400

MAX_VARIABLES = 32
MAX_CHARACTERS = 16_384
MAX_DEPTH = 16

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)

OURS = frozenset(
    {
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "chat_template",
        "tokenize",
        "return_assistant_tokens_mask",
        "return_dict",
        "raise_exception",
        "strftime_now",
        "self",
        "range",
        "dict",
        "namespace",
        "bos_token",
        "eos_token",
        "pad_token",
        "unk_token",
        "sep_token",
        "cls_token",
        "mask_token",
        "image_token",
        "audio_token",
        "video_token",
    }
)
"""Set by the service, or called by templates."""


def check_template_variables(value: Any) -> Any:
    """Return an object of variables unchanged, or raise ValueError."""
    if not isinstance(value, dict):
        return value  # pydantic reports the wrong type
    if len(value) > MAX_VARIABLES:
        raise ValueError(f"it has {len(value)} variables; the limit is {MAX_VARIABLES}")
    for name in value:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r:.80} is not a variable name: use letters, digits and '_'")
        if name in OURS or name.startswith("__"):
            raise ValueError(f"{name!r} is set by the service; remove it")
    if _depth(value) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:  # includes encoding errors
        raise ValueError("it contains a number or a text that JSON cannot represent") from None
    if "\\u0000" in text:
        raise ValueError("a text in it contains a NUL character; remove it")
    characters = len(text)
    if characters > MAX_CHARACTERS:
        raise ValueError(f"it has {characters} characters; the limit is {MAX_CHARACTERS}")
    return value


def merged_variables(kept: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of a model, overridden by those of a request.

    Several variables control reasoning. If a request has one of them, it replaces all.
    """
    replaced = _OF_REASONING if _OF_REASONING & asked.keys() else frozenset[str]()
    return {name: value for name, value in kept.items() if name not in replaced} | {**asked}


_OF_REASONING = frozenset({"enable_thinking", "thinking", "reasoning_effort"})


def _depth(value: Any) -> int:
    """Return the nesting depth of lists and objects, at most one more than the limit."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        depth += 1
    return depth


TemplateVariables = Annotated[dict[str, Any], BeforeValidator(check_template_variables)]
"""Named values for a chat template, such as `{"enable_thinking": false}`."""


def template_time(created_at: float) -> float:
    """Return the current time for chat templates, in a job and later in its model.

    It depends only on the training file, so that the same file and seed give the same weights.
    """
    return created_at // SECONDS_A_DAY * SECONDS_A_DAY
