"""The bytes that each token of a vocabulary stands for.

Decoding token by token loses spaces and breaks characters that span tokens; the bytes do
not. Two spellings cover the families of the catalog that write: byte-level BPE (GPT-2, Llama 3,
Qwen, BART), whose letters stand for bytes, and SentencePiece (Llama 2, Gemma, Phi-3, T5), which
writes a space as U+2581 and, where its vocabulary has them, odd bytes as `<0xE2>`.
"""

import json
import re
from functools import cache, cached_property
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from core.errors import InvalidRequest

_BYTE_OF_LETTER = {letter: byte for byte, letter in bytes_to_unicode().items()}
_BYTE_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """Bytes and display text by token id, for one tokenizer.

    Raises InvalidRequest `unsupported_tokenizer` when its decoder is of neither kind.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self.decoded_bytes = cache(self._decoded_bytes)
        """Return the token's own bytes; those of its name for a special token."""
        self._added = tokenizer.added_tokens_decoder
        self._special_ids = frozenset(tokenizer.all_special_ids) | {
            token_id for token_id, token in self._added.items() if token.special
        }
        if not (self._is_byte_level or {"ByteFallback", "Metaspace"} & self._decoder_types):
            raise InvalidRequest(
                f"The tokenizer's decoder ({', '.join(sorted(self._decoder_types))}) is neither "
                "byte-level BPE nor SentencePiece, so text cannot be streamed.",
                param="model",
                code="unsupported_tokenizer",
            )

    def text_bytes(self, token_id: int) -> bytes:
        """Return what the token adds to the text; nothing for special tokens."""
        return b"" if token_id in self._special_ids else self.decoded_bytes(token_id)

    def _decoded_bytes(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        if added is not None:
            content: str = added.content
            return content.encode()
        token: str | None = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:  # embeddings are often padded beyond the vocabulary
            return b""
        if self._is_byte_level:
            return bytes(_BYTE_OF_LETTER[letter] for letter in token)
        fallback = _BYTE_FALLBACK.fullmatch(token)
        if fallback:
            return bytes([int(fallback[1], 16)])
        return token.replace("\u2581", " ").encode()

    @property
    def marks_first_word(self) -> bool:
        """Whether a text's first word has a space before it that decoding drops."""
        return any(
            part["type"] == "Metaspace" and part.get("prepend_scheme") != "never"
            for part in self._decoder_parts
        )

    @cached_property
    def _is_byte_level(self) -> bool:
        return "ByteLevel" in self._decoder_types

    @cached_property
    def _decoder_types(self) -> frozenset[str]:
        return frozenset(part["type"] for part in self._decoder_parts) or frozenset({"none"})

    @cached_property
    def _decoder_parts(self) -> list[dict[str, Any]]:
        decoder = self._tokenizer.backend_tokenizer.decoder
        if decoder is None:
            return []
        description = json.loads(decoder.__getstate__())
        parts: list[dict[str, Any]] = description.get("decoders", [description])
        return parts
