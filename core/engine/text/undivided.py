"""Answers of a batch: nobody reads them token by token, so each choice has one delta, at its end.

An event costs the engine a JSON line, a message to the thread of the server and a write, and the
worker a read and a parse. With 16 tokens in an answer, a batch is a fifth faster without them.
"""

from collections import defaultdict
from collections.abc import Iterator

from core.engine.policy.request import Request, SequenceState
from core.engine.results import SampledToken
from core.engine.text.answers import Detokenizer
from core.engine.text.token_bytes import TokenBytes
from core.spec.generation import GenerationDelta, GenerationEvent, GenerationStarted


class UndividedAnswer(Detokenizer):
    """Decodes as its base class does, and joins the deltas of a choice."""

    def __init__(self, request: Request, token_bytes: TokenBytes, hardware: str = "") -> None:
        super().__init__(request, token_bytes, hardware)
        self._pending: defaultdict[int, list[GenerationDelta]] = defaultdict(list)
        """The deltas of each unfinished choice."""

    def take(
        self, sequence: SequenceState[Request], token: SampledToken
    ) -> Iterator[GenerationEvent]:
        """Append a token; yield the request's first event, and the events of a choice that ends.

        Tool calls come only at the end of a choice, after its text.
        """
        last: list[GenerationEvent] = []
        for event in super().take(sequence, token):
            if isinstance(event, GenerationStarted):
                yield event
            elif isinstance(event, GenerationDelta):
                self._pending[event.choice].append(event)
            else:
                last.append(event)
        if sequence.is_finished:
            if deltas := self._pending.pop(sequence.index, []):
                yield _joined(deltas)
            yield from last


def _joined(deltas: list[GenerationDelta]) -> GenerationDelta:
    return GenerationDelta(
        choice=deltas[0].choice,
        text="".join(delta.text for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        logprobs=tuple(token for delta in deltas for token in delta.logprobs),
        completion_tokens=deltas[-1].completion_tokens,
    )
