"""The bytes of each token of a vocabulary.

Decoding token by token loses spaces and breaks characters that span tokens; bytes do not. Two
encodings cover the generating families of the catalog: byte-level BPE (GPT-2, Llama 3, Qwen, BART),
whose letters represent bytes, and SentencePiece (Llama 2, Gemma, Phi-3, T5), which writes a space
as U+2581 and, if its vocabulary has them, single bytes as `<0xE2>`.
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

    Raises InvalidRequest `unsupported_tokenizer` if its decoder is of neither kind.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self.decoded_bytes = cache(self._decoded_bytes)
        """Return the bytes of a token; for a special token those of its name."""
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
        """Return the bytes that a token adds to the text; none for special tokens."""
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
        """Whether the first word has a leading space that decoding drops."""
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
