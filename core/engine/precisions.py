"""In which number format the engine runs each model."""

import threading
from time import monotonic

from core.artifacts.manifest import Manifest
from core.models.precision import has_native_bf16
from core.models.precision_choice import PrecisionChooser
from core.spec.base_model import BaseModelSpec
from core.spec.precision import NumberFormat, PrecisionChoice
from core.spec.training import Precision

ASKED_AGAIN_AFTER_SECONDS = 300.0
"""For a base whose cost could not be measured; trying to may read its weights."""


class ServedPrecisions:
    """With a format set, everything runs in that. Safe to use from several threads.

    With `auto` a tuned model runs in the format that it was trained in, and a base by itself in the
    one that the chooser takes for it, which measures a base when it is first asked for. A choice
    that does not last is made again by a later `prepare`.
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
        """Say whether `prepare` has nothing to do for a base by itself."""
        if self.asked != "auto":
            return True
        choice = self._choices.get(base)
        if choice is None or choice.is_lasting:
            return choice is not None
        return monotonic() < self._chosen_at[base] + ASKED_AGAIN_AFTER_SECONDS

    def prepare(self, base: BaseModelSpec, manifest: Manifest | None = None) -> None:
        """Have `of` answer at once; may measure the base. The errors of `choose`."""
        if self.asked != "auto" or self._trained_in(base, manifest) is not None:
            return
        with self._choosing:
            if not self.is_known(base):
                self._choose(base)

    def of(self, base: BaseModelSpec, manifest: Manifest | None = None) -> NumberFormat:
        """Return the format of a base, or of a model tuned on it; the errors of `choose`."""
        if self.asked != "auto":
            return self.asked
        trained = self._trained_in(base, manifest)
        if trained is not None:
            return trained
        if base not in self._choices:
            self.prepare(base)
        return self._choices[base].choice

    def choices(self) -> list[tuple[BaseModelSpec, PrecisionChoice]]:
        """Return what was chosen so far for bases by themselves."""
        return list(self._choices.items())

    def _choose(self, base: BaseModelSpec) -> None:
        assert self._chooser is not None, "auto needs a chooser"
        choice = self._chooser.choose(base, "auto")
        self._chosen_at[base] = monotonic()  # before the choice: `is_known` holds no lock
        self._choices[base] = choice

    def _trained_in(self, base: BaseModelSpec, manifest: Manifest | None) -> NumberFormat | None:
        """Return the format a model was trained in, where it can run in that."""
        trained = None if manifest is None else manifest.precision
        return trained if trained is not None and self._can_run(base, trained) else None

    def _can_run(self, base: BaseModelSpec, trained: NumberFormat) -> bool:
        """Say whether the device computes in the format a model was trained in, with room for it.

        A CPU has no use for fp16, nor any device for bf16 that it emulates.
        """
        assert self._chooser is not None, "auto needs a chooser"
        device = self._chooser.device
        match trained:
            case "fp32":
                if base not in self._has_room:  # to count weights, a model is built without them
                    self._has_room[base] = self._chooser.fits_in_fp32(base)
                return self._has_room[base]
            case "bf16":
                return has_native_bf16(device)
            case "fp16":
                return device.type == "cuda"
