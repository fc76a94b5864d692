"""The number format in which the engine runs each model."""

import threading
from time import monotonic

from core.artifacts.manifest import Manifest
from core.models.precision import has_native_bf16
from core.models.precision_choice import PrecisionChooser
from core.spec.base_model import BaseModelSpec
from core.spec.precision import NumberFormat, PrecisionChoice
from core.spec.training import Precision

ASKED_AGAIN_AFTER_SECONDS = 300.0
"""Before a failed measurement of a base is repeated; it may read the weights."""


class ServedPrecisions:
    """Chooses the number format of each model; thread-safe.

    A configured format applies to everything. With `auto`, a tuned model runs in the format it was
    trained in. A base runs in the format from the chooser, which measures it on its first request.
    A temporary choice is repeated by a later `prepare`.
    """

    def __init__(self, asked: Precision, chooser: PrecisionChooser | None = None) -> None:
        """`auto` needs a chooser."""
        self.asked = asked
        self._chooser = chooser
        self._choices: dict[BaseModelSpec, PrecisionChoice] = {}
        self._chosen_at: dict[BaseModelSpec, float] = {}
        self._has_room: dict[BaseModelSpec, bool] = {}
        self._choosing = threading.Lock()

    def is_known(self, base: BaseModelSpec) -> bool:
        """Return whether `prepare` has nothing to do for a base without an adapter."""
        if self.asked != "auto":
            return True
        choice = self._choices.get(base)
        if choice is None or choice.is_lasting:
            return choice is not None
        return monotonic() < self._chosen_at[base] + ASKED_AGAIN_AFTER_SECONDS

    def prepare(self, base: BaseModelSpec, manifest: Manifest | None = None) -> None:
        """Make `of` return at once; may measure the base. Raises the errors of `choose`."""
        if self.asked != "auto" or self._trained_in(base, manifest) is not None:
            return
        with self._choosing:
            if not self.is_known(base):
                self._choose(base)

    def of(self, base: BaseModelSpec, manifest: Manifest | None = None) -> NumberFormat:
        """Return the format of a base or of a model tuned on it; raises the errors of `choose`."""
        if self.asked != "auto":
            return self.asked
        trained = self._trained_in(base, manifest)
        if trained is not None:
            return trained
        if base not in self._choices:
            self.prepare(base)
        return self._choices[base].choice

    def choices(self) -> list[tuple[BaseModelSpec, PrecisionChoice]]:
        """Return the choices so far for bases without an adapter."""
        return list(self._choices.items())

    def _choose(self, base: BaseModelSpec) -> None:
        assert self._chooser is not None, "auto needs a chooser"
        choice = self._chooser.choose(base, "auto")
        self._chosen_at[base] = monotonic()  # before the choice: `is_known` holds no lock
        self._choices[base] = choice

    def _trained_in(self, base: BaseModelSpec, manifest: Manifest | None) -> NumberFormat | None:
        """Return the format that a model was trained in, if the device can run it."""
        trained = None if manifest is None else manifest.precision
        return trained if trained is not None and self._can_run(base, trained) else None

    def _can_run(self, base: BaseModelSpec, trained: NumberFormat) -> bool:
        """Return whether the device supports the format natively and has room for the model.

        fp16 on a CPU and emulated bf16 do not count as supported.
        """
        assert self._chooser is not None, "auto needs a chooser"
        device = self._chooser.device
        match trained:
            case "fp32":
                if base not in self._has_room:  # counting builds the model without weights
                    self._has_room[base] = self._chooser.fits_in_fp32(base)
                return self._has_room[base]
            case "bf16":
                return has_native_bf16(device)
            case "fp16":
                return device.type == "cuda"
