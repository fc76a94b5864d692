"""In which number format the engine runs each model."""

from core.artifacts.manifest import Manifest
from core.models.precision import has_native_bf16
from core.models.precision_choice import PrecisionChooser
from core.spec.precision import NumberFormat, PrecisionChoice
from core.spec.run import BaseModelSpec
from core.spec.training import Precision


class ServedPrecisions:
    """With a format set, everything runs in that. Safe to use from several threads.

    With `auto` a tuned model runs in the format that it was trained in, and a base by itself in the
    one that the chooser takes for it, which measures a base when it is first asked for.
    """

    def __init__(self, asked: Precision, chooser: PrecisionChooser | None = None) -> None:
        """`auto` needs a chooser."""
        self.asked = asked
        self._chooser = chooser
        self._choices: dict[BaseModelSpec, PrecisionChoice] = {}

    def is_known(self, base: BaseModelSpec) -> bool:
        """Say whether `of` a base answers at once."""
        return self.asked != "auto" or base in self._choices

    def of(self, base: BaseModelSpec, manifest: Manifest | None = None) -> NumberFormat:
        """Return the format of a base, or of a model tuned on it; the errors of `choose`."""
        if self.asked != "auto":
            return self.asked
        trained = None if manifest is None else manifest.precision
        if trained is not None and self._can_run(base, trained):
            return trained
        return self._choice(base).choice

    def choices(self) -> list[tuple[BaseModelSpec, PrecisionChoice]]:
        """Return what was chosen so far for bases by themselves."""
        return list(self._choices.items())

    def _choice(self, base: BaseModelSpec) -> PrecisionChoice:
        if base not in self._choices:
            assert self._chooser is not None, "auto needs a chooser"
            self._choices[base] = self._chooser.choose(base, "auto")
        return self._choices[base]

    def _can_run(self, base: BaseModelSpec, trained: NumberFormat) -> bool:
        """Say whether the device computes in the format a model was trained in, with room for it.

        A CPU has no use for fp16, nor any device for bf16 that it emulates.
        """
        assert self._chooser is not None, "auto needs a chooser"
        device = self._chooser.device
        match trained:
            case "fp32":
                return self._chooser.fits_in_fp32(base)
            case "bf16":
                return has_native_bf16(device)
            case "fp16":
                return device.type == "cuda"
