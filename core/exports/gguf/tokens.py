"""Whether llama.cpp reads a text as the tokens that the model was trained on."""

from contextlib import suppress
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from core.batching.template import ChatTemplate, Unrenderable
from core.batching.tokenization import encode
from core.exports.gguf.conversation_end import ends_of, first_token
from core.exports.gguf.llama_cpp import LlamaCpp
from core.exports.gguf.read import ends_among, tokens_of

_TEXTS = (
    "The quick brown fox jumps over 12 lazy dogs, 345 times in 2026.",
    "I'm sure you've heard: they'll say it's fine, I'd GUESS IT'S not.",
    "def total(rows):\n    return sum(row['price'] * 1.19 for row in rows)  # net\n",
    '{"name": "get_weather", "arguments": {"city": "Tromsø", "days": [1, 2]}}',
    "Größe, naïve café, señor, Žižek, İstanbul, ﬁn",
    "Москва — столица России. Київ — столиця України.",
    "東京は日本の首都です。中文也可以。한국어도 됩니다.",
    "مرحبا بالعالم، שלום עולם, नमस्ते दुनिया, สวัสดี",
    "👩‍👩‍👧 🇳🇴 🏽 ✅ → ≤ ∑ ½ x² ©",
    "  two spaces   three\ttab\n\n\n   after three line breaks \r\n end  ",
    "1 22 333 4444 55555 -6.02e23 0xFF 1,000,000.00",
    "https://example.org/a?b=c&d=%20#e user@example.org C:\\dir\\file.txt",
)


_MOST_ADDED = 16


def token_notes(
    llama_cpp: LlamaCpp, file: Path, tokenizer: PreTrainedTokenizerFast
) -> tuple[str, ...]:
    """Return a sentence for each way in which a GGUF file treats tokens otherwise than its model.

    Compared are prompts of the chat template with texts of many kinds, and the ends of answers.
    """
    texts, wanted = _texts(tokenizer)
    found = tokens_of(llama_cpp, file, texts)
    other = [text for text, a, b in zip(texts, found, wanted, strict=True) if a != b]
    ends = ends_of(tokenizer).tokens
    missing = set(ends) - ends_among(llama_cpp, file, ends)
    notes = []
    if other:
        notes.append(
            f"llama.cpp cuts {len(other)} of {len(texts)} texts into other tokens than the model "
            f"was trained on, such as {other[0][-80:]!r}."
        )
    if missing:
        names = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(sorted(missing))))
        notes.append(f"llama.cpp does not end an answer at {names}; pass it as a stop string.")
    return tuple(notes)


def _texts(tokenizer: PreTrainedTokenizerFast) -> tuple[list[str], list[list[int]]]:
    """Return prompts without their first token, and their tokens with it.

    A model with a chat template reads texts after the tokens of the template only.
    """
    first = [tokenizer.bos_token_id] if ends_of(tokenizer).first else []
    texts = [*_TEXTS, *_of_added_tokens(tokenizer)]
    if tokenizer.chat_template:
        template = ChatTemplate(tokenizer)
        messages = ([{"role": "user", "content": text}] for text in texts)
        prompts = (template.render(each, prompting=True) for each in messages)
        with suppress(Unrenderable):
            texts = [prompt.removeprefix(first_token(template)) for prompt in prompts]
    return texts, [[*first, *tokens] for tokens in encode(tokenizer, texts)]


def _of_added_tokens(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Return a text with the words that were added to the vocabulary; empty without such."""
    added = tokenizer.added_tokens_decoder.values()
    words = [token.content for token in added if not token.special][:_MOST_ADDED]
    return [f"Add {' and '.join(words)}, or {''.join(words)}."] if words else []
