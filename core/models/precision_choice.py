"""The number format of a base: what was asked for or, for `auto`, what its measured cost allows."""

import gc
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from core.catalog.describe import comes_quantised
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
"""Of the device's memory that fp32 weights may take; a run needs the rest beside them."""

LARGEST_FACTOR = 1.25
"""Of the fp32 weights: what measuring takes with the logits."""


@dataclass(frozen=True)
class PrecisionChooser:
    """Chooses for bases on one device; the cost of each is measured once and kept in `folder`.

    A lasting choice depends on the base, the device and its whole memory, never on the job, so the
    next one is the same. One that was made because the cost could not be measured just then
    (`PrecisionChoice.is_lasting`) may be another the next time. `fits` says whether fp32 weights of
    so many bytes may be taken. Safe to use from several threads.
    """

    device: torch.device
    folder: Path | None = None
    fits: Callable[[int], bool] | None = None
    measuring: threading.Lock = field(default_factory=threading.Lock)
    """Held while a model is built and compared."""

    def choose(self, base: BaseModelSpec, asked: Precision) -> PrecisionChoice:
        """Return the format, with the cost of 16 bits where that is known.

        For 16 bits that were asked for it is measured only where it can be kept. Raises the errors
        of `load_config`, `load_tokenizer` and `load_base`.
        """
        if asked == "fp32" or (asked != "auto" and self.folder is None):
            return PrecisionChoice(choice=asked, reason="set")
        coarse = sixteen_bits_of(self.device) if asked == "auto" else asked
        if coarse is None:
            return PrecisionChoice(choice="fp32", reason="not native")
        config = load_config(base)
        if comes_quantised(base, config.to_dict()):
            return PrecisionChoice(choice=coarse, reason="quantized" if asked == "auto" else "set")
        found = self._cost(base, coarse)
        cost = found if isinstance(found, PrecisionCost) else None
        if asked != "auto":
            return PrecisionChoice(choice=coarse, reason="set", cost=cost)
        if cost is None:
            return PrecisionChoice(choice=coarse, reason=found)
        if not cost.is_high:
            return PrecisionChoice(choice=coarse, reason="measured", cost=cost)
        if not self._fits(self._fp32_bytes(base)):
            return PrecisionChoice(choice=coarse, reason="memory", cost=cost)
        return PrecisionChoice(choice="fp32", reason="measured", cost=cost)

    def fits_in_fp32(self, base: BaseModelSpec) -> bool:
        """Say whether the base has room in fp32; quantised weights stay as small as they are."""
        config = load_config(base)
        return comes_quantised(base, config.to_dict()) or self._fits(self._fp32_bytes(base))

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
            except Exception:  # a run goes on without the figure
                logger.exception("What %s costs %s could not be measured.", coarse, base.id)
                return "unmeasured"
            finally:
                _give_back_memory()
            logger.info("%s: %s", base.id, cost)
            store.keep(base, cost)
            return cost

    def _fits(self, fp32_bytes: int) -> bool:
        if self.fits is not None:
            return self.fits(fp32_bytes)
        return fp32_bytes <= FP32_SHARE * total_bytes(self.device)

    def _fp32_bytes(self, base: BaseModelSpec) -> int:
        config = load_config(base)
        config.dtype = torch.float32  # what is built in another one changes torch's default
        with self.measuring:
            model = outline(base, config, family_of(config.model_type).own_task)
        return sum(4 * weight.numel() for weight in model.parameters())


def _give_back_memory() -> None:
    """Free a model that only reference cycles hold."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
