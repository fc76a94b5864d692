"""How a conversation begins and ends in tokens, which GGUF keeps as keys of the tokenizer."""

import json
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from core.batching.template import ChatTemplate, Unrenderable
from core.batching.tokenization import opening_tokens
from core.batching.turns import end_token_ids

_USER = {"role": "user", "content": "a"}


@dataclass(frozen=True)
class Ends:
    """The token before a prompt, if there is one, and the tokens that end an answer."""

    first: bool
    tokens: tuple[int, ...]
    """The end of the tokenizer first; at most three, for which GGUF has keys."""
    space: bool = True
    """Whether a text after a special token begins with the space of SentencePiece."""

    def keys(self) -> dict[str, bool | int]:
        """Return the keys of a GGUF file. `eot` and `eom` end an answer as `eos` does."""
        names = ("eos_token_id", "eot_token_id", "eom_token_id")
        ids = zip(names, self.tokens, strict=False)
        return {
            "tokenizer.ggml.add_bos_token": self.first,
            **({} if self.space else {"tokenizer.ggml.add_space_prefix": False}),
            **{f"tokenizer.ggml.{name}": token for name, token in ids},
        }


def ends_of(tokenizer: PreTrainedTokenizerFast) -> Ends:
    """Return what prompts of a tokenizer begin with, and what its answers end with.

    With a chat template, its text decides: llama.cpp would add a first token to every prompt if the
    tokenizer does so to plain texts, a second one if the template writes one too.
    """
    found = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    if not tokenizer.chat_template:
        return Ends(tokenizer.bos_token_id in opening_tokens(tokenizer), found)
    template = ChatTemplate(tokenizer)
    ends = sorted(end_token_ids(template) - set(found))
    return Ends(bool(first_token(template)), (*found, *ends)[:3], _has_spaces(tokenizer))


def _has_spaces(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Newer tokenizers of SentencePiece add the space at the start of a prompt only, if at all.

    A prompt of a chat template starts with a special token, so that it has none. llama.cpp adds it
    after every special token, as older tokenizers do.
    """
    rules = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    return rules.get("prepend_scheme") not in ("first", "never")


def first_token(template: ChatTemplate) -> str:
    """Return the text of the first token if the template writes it before everything else."""
    token = template.tokenizer.bos_token
    try:
        text = template.render([_USER], prompting=True)
    except Unrenderable:
        return ""
    # In ChatML the first token is also the one that begins every message.
    return token if token and text.startswith(token) and text.count(token) == 1 else ""
