"""The results of whole texts, and the answers that are made of them."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from core.engine.policy.request import LabelsSpec, SequenceState, TextsRequest
from core.engine.results import TextResult
from core.errors import Unavailable
from core.spec.classification import ClassificationAnswer
from core.spec.embedding import EmbeddingAnswer


@dataclass(frozen=True)
class TextsRead:
    """The result of every text of a TextsRequest, in its order."""

    results: tuple[TextResult, ...]


class TextsAnswer:
    """Collects the results of a request's texts."""

    def __init__(self, request: TextsRequest) -> None:
        self._request = request
        self._results: dict[int, TextResult] = {}

    def take(
        self, sequence: SequenceState[TextsRequest], result: TextResult
    ) -> Iterator[TextsRead]:
        """Store the result of a text; yield all results after the last one.

        Raises Unavailable for a vector with an element that is not a finite number.
        """
        if isinstance(result, bytes) and not np.isfinite(np.frombuffer(result, "<f4")).all():
            raise Unavailable(
                f"The vector of text {sequence.index} of the input is not finite. The model may "
                "need a wider number format.",
                code="engine_failed",
                retry_after_seconds=60,
            )
        sequence.is_finished = True
        self._results[sequence.index] = result
        if len(self._results) == self._request.sequences:
            yield TextsRead(tuple(self._results[index] for index in range(len(self._results))))


def classification_answer(
    request: TextsRequest, results: Sequence[TextResult]
) -> ClassificationAnswer:
    """Return the scores of the texts by label."""
    assert isinstance(request.wanted, LabelsSpec)
    labels = request.wanted.labels
    rows = cast(Sequence[tuple[float, ...]], results)
    return ClassificationAnswer(
        scores=tuple(dict(zip(labels, scores, strict=True)) for scores in rows),
        precision=request.model.precision,
    )


def embedding_answer(request: TextsRequest, results: Sequence[TextResult]) -> EmbeddingAnswer:
    """Return the vectors of the texts, and the number of their tokens."""
    vectors = cast(Sequence[bytes], results)
    return EmbeddingAnswer(
        vectors=tuple(b64encode(vector).decode() for vector in vectors),
        tokens=sum(map(len, request.texts)),
        precision=request.model.precision,
    )
