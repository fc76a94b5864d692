"""Decodes tokens to text that can be sent: complete characters without stop strings.

Plain Python. Each sequence has one `TextStream`.
"""

import codecs
from collections import deque
from dataclasses import dataclass

from core.spec.generation import GeneratedToken


@dataclass(frozen=True)
class Piece:
    """Text to send, with the log-probabilities of its tokens."""

    text: str
    logprobs: tuple[GeneratedToken, ...]


@dataclass(frozen=True)
class _Decoded:
    """A token's record and the range of characters that its bytes belong to."""

    record: GeneratedToken
    first_character: int
    end_character: int


class TextStream:
    """Incremental UTF-8 decoding with stop strings.

    The text ends before the first completed stop string (the longest one if a character completes
    several), or after it with `includes_stop`. That depends only on the characters, not on the
    tokens. A suffix is held back only while it may become a stop string. Invalid bytes become
    U+FFFD. A token's record is sent with the last character that it belongs to; tokens that begin
    after the end are dropped. With `drops_first_space`, the leading space of the first token with
    text is removed.
    """

    def __init__(
        self,
        stop: tuple[str, ...] = (),
        drops_first_space: bool = False,
        *,
        includes_stop: bool = False,
    ) -> None:
        self.stopped = False
        self._includes_stop = includes_stop
        self._drops_space = drops_first_space
        self._stop = tuple(each for each in stop if each)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoded_characters = 0
        self._sent_characters = 0
        self._held = ""
        self._unsent: deque[_Decoded] = deque()

    def push(
        self,
        token_bytes: bytes,
        record: GeneratedToken | None = None,
        code: str = "",
        *,
        may_stop: bool = True,
    ) -> Piece | None:
        """Add a token; return the text that can be sent now. Sets `stopped` at a stop string.

        `code` represents a control token, which ends an incomplete character. A stop string that
        is complete before a token that `may_stop` is ordinary text.
        """
        if self._drops_space and token_bytes:
            token_bytes, self._drops_space = token_bytes.lstrip(b" "), False
        first_character = self._decoded_characters
        text = self._decoder.decode(token_bytes, final=bool(code)) + code
        self._take(text, may_stop=may_stop)
        if record is not None:
            is_inside_character = bool(self._decoder.getstate()[0])
            end = self._decoded_characters + is_inside_character
            self._unsent.append(_Decoded(record, first_character, end))
        return self._send(len(self._held) if self.stopped else self._safe_length())

    def finish(self) -> Piece | None:
        """Return the held-back text at the end. An incomplete character becomes U+FFFD."""
        if not self.stopped:
            self._take(self._decoder.decode(b"", final=True), may_stop=True)
        return self._send(len(self._held))

    def _take(self, text: str, *, may_stop: bool) -> None:
        self._decoded_characters += len(text)
        before = len(self._held)
        self._held += text
        if not may_stop:
            return
        found = [
            (start + len(stop), start)
            for stop in self._stop
            if (start := self._held.find(stop, max(0, before + 1 - len(stop)))) >= 0
        ]
        if found:
            self.stopped = True
            end, start = min(found)
            self._held = self._held[: end if self._includes_stop else start]

    def _safe_length(self) -> int:
        """Return the length of the text without its longest suffix that may begin a stop string."""
        if not self._stop:
            return len(self._held)
        longest_stop = max(map(len, self._stop))
        for start in range(max(0, len(self._held) - longest_stop + 1), len(self._held)):
            suffix = self._held[start:]
            if any(stop.startswith(suffix) for stop in self._stop):
                return start
        return len(self._held)

    def _send(self, length: int) -> Piece | None:
        text, self._held = self._held[:length], self._held[length:]
        self._sent_characters += length
        records = []
        if self.stopped:
            self._unsent = deque(
                each for each in self._unsent if each.first_character < self._sent_characters
            )
            records = [each.record for each in self._unsent]
            self._unsent.clear()
        while self._unsent and self._unsent[0].end_character <= self._sent_characters:
            records.append(self._unsent.popleft().record)
        return Piece(text, tuple(records)) if text or records else None
