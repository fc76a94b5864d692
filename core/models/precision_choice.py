"""The number format of a base: the requested one or, for `auto`, one chosen by measured cost."""

import gc
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from core.catalog.describe import loads_quantized
from core.catalog.families import family_of
from core.errors import TunesmithError
from core.models.load import load_config, outline
from core.models.memory import USABLE_SHARE, free_bytes, total_bytes
from core.models.precision import sixteen_bits_of
from core.models.precision_cost import measure_cost
from core.models.precision_store import PrecisionStore
from core.spec.base_model import BaseModelSpec
from core.spec.precision import PrecisionChoice, PrecisionCost, SixteenBits
from core.spec.training import Precision

logger = logging.getLogger(__name__)

FP32_SHARE = 0.5
"""The share of the device's memory that fp32 weights may take; a run needs the rest."""

LARGEST_FACTOR = 1.25
"""The memory of a measurement, with its logits, as a multiple of the fp32 weights."""


@dataclass(frozen=True)
class PrecisionChooser:
    """Chooses number formats on one device. Each cost is measured once and stored in `folder`.

    A lasting choice depends on the base, the device and its total memory, never on the job, so it
    is always the same. A choice is not lasting (`PrecisionChoice.is_lasting`) if the cost could not
    be measured at that time. `fits` returns whether fp32 weights of a number of bytes are allowed.
    Thread-safe.
    """

    device: torch.device
    folder: Path | None = None
    fits: Callable[[int], bool] | None = None
    measuring: threading.Lock = field(default_factory=threading.Lock)
    """Held while a model is built and measured."""

    def choose(self, base: BaseModelSpec, requested: Precision) -> PrecisionChoice:
        """Return the format, with the cost of 16 bits if it is known.

        If 16 bits are requested, the cost is measured only if there is a folder to store it. Raises
        the errors of `load_config`, `load_tokenizer` and `load_base`.
        """
        if requested == "fp32" or (requested != "auto" and self.folder is None):
            return PrecisionChoice(choice=requested, reason="set")
        coarse = sixteen_bits_of(self.device) if requested == "auto" else requested
        if coarse is None:
            return PrecisionChoice(choice="fp32", reason="not native")
        config = load_config(base)
        if loads_quantized(base, config.to_dict()):
            reason: Literal["quantized", "set"] = "quantized" if requested == "auto" else "set"
            return PrecisionChoice(choice=coarse, reason=reason)
        found = self._cost(base, coarse)
        cost = found if isinstance(found, PrecisionCost) else None
        if requested != "auto":
            return PrecisionChoice(choice=coarse, reason="set", cost=cost)
        if cost is None:
            return PrecisionChoice(choice=coarse, reason=found)
        if not cost.is_high:
            return PrecisionChoice(choice=coarse, reason="measured", cost=cost)
        if not self._fits(self._fp32_bytes(base)):
            return PrecisionChoice(choice=coarse, reason="memory", cost=cost)
        return PrecisionChoice(choice="fp32", reason="measured", cost=cost)

    def fits_in_fp32(self, base: BaseModelSpec) -> bool:
        """Return whether the base has room in fp32; quantized weights keep their size."""
        config = load_config(base)
        return loads_quantized(base, config.to_dict()) or self._fits(self._fp32_bytes(base))

    def _cost(
        self, base: BaseModelSpec, coarse: SixteenBits
    ) -> PrecisionCost | Literal["memory", "busy", "unmeasured"]:
        store = PrecisionStore(self.folder, self.device)
        if (cost := store.find(base, coarse)) is not None:
            return cost
        needed = self._fp32_bytes(base)
        with self.measuring:
            if (cost := store.find(base, coarse)) is not None:
                return cost  # another thread was faster
            if not self._fits(needed):
                return "memory"
            free = free_bytes(self.device)
            if free is not None and needed * LARGEST_FACTOR > USABLE_SHARE * free:
                return "busy"
            try:
                cost = measure_cost(base, coarse, self.device)
            except TunesmithError:
                raise
            except Exception:  # a run does not need the figure
                logger.exception("The cost of %s for %s could not be measured.", coarse, base.id)
                return "unmeasured"
            finally:
                _free_memory()
            logger.info("%s: %s", base.id, cost)
            store.keep(base, cost)
            return cost

    def _fits(self, fp32_bytes: int) -> bool:
        if self.fits is not None:
            return self.fits(fp32_bytes)
        return fp32_bytes <= FP32_SHARE * total_bytes(self.device)

    def _fp32_bytes(self, base: BaseModelSpec) -> int:
        config = load_config(base)
        config.dtype = torch.float32  # building in another dtype changes torch's default
        with self.measuring:
            model = outline(base, config, family_of(config.model_type).own_task)
        return sum(4 * weight.numel() for weight in model.parameters())


def _free_memory() -> None:
    """Free models that are only referenced in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
