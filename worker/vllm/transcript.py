"""Turns the tokens of one request, as vLLM sends them, into the events for its client."""

from collections.abc import Iterator

from core.engine.policy.request import Request, SequenceState
from core.engine.results import SampledToken, TokenScores
from core.engine.text.answers import Detokenizer
from core.engine.text.token_bytes import TokenBytes
from core.errors import Unavailable
from core.spec.generation import GenerationEvent
from worker.vllm.completion import Choice, is_greedy, reads_prompt


class Transcript:
    """The state of each choice; the engine's own code decodes the text.

    Greedy choices are equal: vLLM generates the first, and the others repeat it.
    """

    def __init__(self, request: Request, token_bytes: TokenBytes, hardware: str) -> None:
        self._request = request
        self._answer = Detokenizer(request, token_bytes, hardware)
        self._sequences = [SequenceState(request, index) for index in range(request.sequences)]
        self._is_copied = is_greedy(request)
        self._begun: set[int] = set()

    @property
    def is_complete(self) -> bool:
        """Whether every choice has ended, even if vLLM still sends tokens."""
        return all(sequence.is_finished for sequence in self._sequences)

    def take(self, choice: Choice) -> Iterator[GenerationEvent]:
        """Add new tokens of a choice; yield the resulting events."""
        of_prompt, tokens = self._split(choice)
        for sequence in self._sequences if self._is_copied else [self._sequences[choice.index]]:
            sequence.note_scores(0, of_prompt)
            for token in tokens:
                if sequence.is_finished:
                    break
                yield from self._answer.take(sequence, token)
                if sequence.matcher is not None and sequence.matcher.error:
                    raise _grammar_violated(sequence.matcher.error)

    def _split(self, choice: Choice) -> tuple[list[TokenScores | None], list[SampledToken]]:
        """Return the scores of the prompt (in the first chunk only) and the tokens after it."""
        request = self._request
        alternatives = request.sampling.top_logprobs
        if alternatives is None or choice.logprobs is None:
            scores: list[TokenScores | None] = [None] * len(choice.token_ids)
        else:
            scores = choice.logprobs.scores(alternatives)
        is_first = choice.index not in self._begun
        self._begun.add(choice.index)
        given = request.sampling.given_answer
        if given is not None:
            return self._given(given, scores) if is_first else ([], [])
        in_prompt = len(request.prompt_tokens) if is_first and reads_prompt(request) else 0
        written = zip(choice.token_ids, scores[in_prompt:], strict=True)
        return scores[:in_prompt], [SampledToken(*each) for each in written]

    def _given(
        self, given: tuple[int, ...], scores: list[TokenScores | None]
    ) -> tuple[list[TokenScores | None], list[SampledToken]]:
        """Return the end of the prompt that vLLM has scored as the answer."""
        if not reads_prompt(self._request):
            return [], [SampledToken(token, None) for token in given]
        in_prompt = len(self._request.prompt_tokens)
        of_answer = scores[in_prompt : in_prompt + len(given)]
        answer = [SampledToken(*each) for each in zip(given, of_answer, strict=True)]
        return scores[:in_prompt], answer


def _grammar_violated(reason: str) -> Unavailable:
    return Unavailable(
        f"An answer of vLLM violates its grammar ({reason[:300]}). Start vLLM with "
        "--structured-outputs-config.backend guidance.",
        param="response_format",
        code="engine_failed",
        retry_after_seconds=60,
    )
