"""The protocol between API and engine for classification.

One request is one POST and one JSON answer; an error is an HTTP status with
`{"error": {message, param, code}}`.
"""

from pydantic import Field

from core.spec.base import Spec
from core.spec.model_request import ModelRequest
from core.spec.precision import NumberFormat

MAX_TEXTS = 256


class ClassificationRequest(ModelRequest):
    texts: tuple[str, ...] = Field(min_length=1, max_length=MAX_TEXTS)

    @property
    def sequences(self) -> int:
        return len(self.texts)


class ClassificationAnswer(Spec):
    """The probability of every label for each text, in the order of the request.

    They sum to 1, unless the model was trained with several labels per text; then each one is
    independent.
    """

    scores: tuple[dict[str, float], ...]
    precision: NumberFormat | None = None
    """Of the weights used; None if the engine does not report it."""
