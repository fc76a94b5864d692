"""The effect of rounding on a model's log-probabilities, and the differences it does not explain.

The size of a difference alone is not conclusive: two runs of a deep model in bf16 may differ as
much. So it is compared with the rounding measured on the same model and rows. The direction of a
difference is more informative than its size. Let d be the difference between engine and training,
and a the difference caused by removing a module. d·a / a·a is 0 on average for rounding, which is
independent of modules, and 1 for an engine that ignores the module, even if a is small compared
with the rounding of one token.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.spec.parity import NumberFormat, ParityReference

_PRIOR_REPEATS = 4
"""The deviation of a token is shrunk towards the mean, with the weight of this many repeats."""
_LEAST_DEVIATION = 1e-6
_LEAST_SIGNAL = 4.0
"""The number of deviations by which a change must exceed rounding noise to be measurable."""
MANTISSA_BITS: dict[NumberFormat, int] = {"fp32": 23, "fp16": 10, "bf16": 7}


def is_coarser(one: NumberFormat, other: NumberFormat) -> bool:
    return MANTISSA_BITS[one] < MANTISSA_BITS[other]


@dataclass(frozen=True)
class Share:
    """The share of a known change in a difference, 0 for none and 1 for all, with its error."""

    value: float
    error: float

    def is_beyond(self, least: float, errors: float) -> bool:
        """Whether it exceeds `least`, and `errors` times its error."""
        return self.value > max(least, errors * self.error)


@dataclass(frozen=True)
class Rounding:
    """A model's log-probabilities and repeats with perturbed rounding, in nats."""

    figures: tuple[float, ...]
    repeats: tuple[tuple[float, ...], ...]

    @classmethod
    def measured(cls, reference: ParityReference, precision: NumberFormat) -> "Rounding":
        """Return the measurement in `precision`, or else in the precision of training.

        Without a measurement in fp16, that of bf16 is scaled by 1/8, because rounding errors are
        proportional to the rounding step.
        """
        found, scale = _repeats(reference, precision), 1.0
        if not found and is_coarser(precision, reference.precision):
            found = _repeats(reference, "bf16")
            scale = 2.0 ** (MANTISSA_BITS["bf16"] - MANTISSA_BITS[precision])
        figures = reference.figures
        return cls(
            figures,
            tuple(
                tuple(a + scale * (b - a) for a, b in zip(figures, repeat, strict=True))
                for repeat in found or _repeats(reference, reference.precision)
            ),
        )

    @property
    def mean(self) -> float:
        differences = self._differences()
        return sum(differences) / len(differences)

    @property
    def max(self) -> float:
        return max(self._differences())

    def share_of(self, changed: Sequence[float], said: Sequence[float]) -> Share | None:
        """Return the share of the change to `changed` in the engine's values `said`.

        `changed` may be shorter. None if the change cannot be distinguished from rounding.
        """
        share = self._share(changed, said, self.repeats)
        if share is None or len(self.repeats) < 2:
            return share
        # the share of each repeat, as if it were an engine, estimates the error from rounding
        by_chance = [
            self._share(changed, repeat, (*self.repeats[:index], *self.repeats[index + 1 :]))
            for index, repeat in enumerate(self.repeats)
        ]
        squares = [each.value**2 for each in by_chance if each is not None]
        error = math.sqrt(sum(squares) / len(squares)) if squares else 0.0
        return Share(share.value, max(share.error, error))

    def _differences(self) -> list[float]:
        return [
            abs(b - a) for repeat in self.repeats for a, b in zip(self.figures, repeat, strict=True)
        ]

    def _deviations(self) -> list[float]:
        """Return the root mean square difference of two roundings of each value."""
        every = self._differences()
        of_all = sum(each**2 for each in every) / len(every)
        count = len(self.repeats)
        squares = [
            sum((repeat[index] - figure) ** 2 for repeat in self.repeats)
            for index, figure in enumerate(self.figures)
        ]
        return [
            math.sqrt((square + _PRIOR_REPEATS * of_all) / (count + _PRIOR_REPEATS))
            + _LEAST_DEVIATION
            for square in squares
        ]

    def _share(
        self,
        changed: Sequence[float],
        said: Sequence[float],
        repeats: Sequence[Sequence[float]],
    ) -> Share | None:
        """Project the difference of `said` on the change, both in units of deviations.

        The change is relative to the mean of the repeats. Relative to the figures themselves, their
        rounding would be in both and look like a share of the change.
        """
        along = energy = 0.0
        deviations = self._deviations()
        for index, changed_value in enumerate(changed):
            mean = sum(repeat[index] for repeat in repeats) / len(repeats)
            change = (changed_value - mean) / deviations[index]
            along += change * (said[index] - self.figures[index]) / deviations[index]
            energy += change**2
        # a deviation is the distance of two roundings; the change has those of one and of a mean
        of_rounding = len(changed) * (1 + 1 / len(repeats)) / 2
        signal = energy - of_rounding
        if signal <= _LEAST_SIGNAL * of_rounding * math.sqrt(2 / len(changed)):
            return None
        return Share(along / signal, math.sqrt(energy) / signal)


def _repeats(reference: ParityReference, precision: NumberFormat) -> tuple[tuple[float, ...], ...]:
    return tuple(each.figures for each in reference.repeats if each.precision == precision)
