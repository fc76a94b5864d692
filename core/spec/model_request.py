"""What a request to an engine says about its model."""

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.serving import ADAPTER_FORM, ServingSpec


class ModelRequest(Spec):
    """A request to a base, or to a base with an adapter."""

    id: str
    base: BaseModelSpec
    adapter: BundleRef | None = None
    serving: ServingSpec = Field(ADAPTER_FORM, description="how the adapter is served")
    project: str = Field("", description="of the caller; the engine is fair between projects")

    @property
    def sequences(self) -> int:
        """The number of sequences that the engine runs for it."""
        return 0
