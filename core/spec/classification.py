"""The protocol between API and engine for classification.

One request is one POST and one JSON answer; an error is an HTTP status with
`{"error": {message, param, code}}`.
"""

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.precision import NumberFormat
from core.spec.serving import ADAPTER_FORM, ServingSpec

MAX_TEXTS = 256


class ClassificationRequest(Spec):
    id: str
    base: BaseModelSpec
    adapter: BundleRef | None = None
    serving: ServingSpec = Field(ADAPTER_FORM, description="how the adapter is served")
    texts: tuple[str, ...] = Field(min_length=1, max_length=MAX_TEXTS)
    project: str = Field("", description="of the caller; the engine is fair between projects")


class ClassificationAnswer(Spec):
    """The probability of every label for each text, in the order of the request.

    They sum to 1, unless the model was trained with several labels per text; then each one is
    independent.
    """

    scores: tuple[dict[str, float], ...]
    precision: NumberFormat | None = None
    """Of the weights used; None if the engine does not report it."""
