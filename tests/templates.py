"""Real chat templates, those that TRL's package ships, on the tokenizer of the tiny base.

A template's control tokens are added to the tokenizer, as the tokenizers it was written for have
them: without them a template's text would be cut into pieces that no such model reads.
"""

import copy
import re
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import core.models

_CONTROL = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<\uff5c[^<>\s]{1,40}\uff5c>|<\|[a-z_]+>|<[a-z_]+\|>|<\|\"\|>"
    r"|\[/?[A-Z][A-Z_]+\]|<(?:start|end)_of_\w+>"
)
_TAGS = re.compile(r"</?(?:think|tool_call|arg_key|arg_value)>")
"""What such tokenizers have as one token that is no control token: it is part of the text."""


def _folder() -> Path:
    found = find_spec("trl")
    assert found is not None and found.submodule_search_locations is not None
    return Path(next(iter(found.submodule_search_locations))) / "chat_templates"


TEMPLATES = tuple(sorted(path.stem for path in _folder().glob("*.jinja")))


def template_source(name: str) -> str:
    return (_folder() / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def template_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with a template and its control tokens; do not change it."""
    source = template_source(name)
    tokenizer = copy.deepcopy(_tiny())
    present = set(tokenizer.get_added_vocab())
    control = sorted(set(_CONTROL.findall(source)) - present)
    tags = sorted(set(_TAGS.findall(source)) - present)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in tags])
    if tokenizer.bos_token is None and "bos_token" in source:
        tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.chat_template = source
    return tokenizer


@lru_cache(maxsize=1)
def _tiny() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(Path(core.models.__file__).parent / "tiny")
