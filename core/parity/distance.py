"""How far an exported model is from the served one, and whether that is too far.

Two questions. Is the difference of log-probabilities small enough for the number format? And is the
adapter in it: let d be the difference between export and served model, and a that between base and
served model. 1 - d·a / a·a is 1 if nothing of the adapter is missing, 0 if the export is the base.
Rounding, which is independent of a, hardly moves it; so it finds an adapter without effect even in
four bits.
"""

import math
from collections.abc import Sequence

from core.spec.base_model import Quantization
from core.spec.export import Distance, ExportOptions, ExportReplay
from core.spec.export_steps import RowFigures, ServedFigures
from core.spec.precision import NumberFormat

ALLOWED_NATS = {"fp32": 0.01, "16 bits": 0.1, "8 bits": 0.3, "4 bits": 1.0}
"""The largest mean difference by number format (docs/decisions/0040-exports.md)."""
ROUNDING_FACTOR = 3.0
"""A model that rounding alone moves further is allowed this multiple of it."""
LEAST_SHARE = 0.5
LEAST_EFFECT_NATS = 0.01
"""A smaller effect of the adapter cannot be distinguished from rounding."""
LARGEST_ERROR = 0.2
"""Of a share, estimated for differences that are independent of the adapter."""


def judge_export(
    options: ExportOptions,
    stored_in: NumberFormat,
    served: ServedFigures,
    exported: Sequence[RowFigures],
    quantization_gap_nats: float | None,
) -> ExportReplay:
    """Compare the figures of an export with those of the served model.

    `stored_in`: the number format of the written weights. Rows without figures are not compared.
    """
    said = _numbers(exported)
    wanted = _numbers(served.served)
    if not wanted:
        return ExportReplay(status="unchecked", reason="The rows have no labelled tokens.")
    if not all(map(math.isfinite, said)):
        return ExportReplay(
            status="marked", reason="The log-probabilities of the export are not finite numbers."
        )
    usual = ALLOWED_NATS[bits_of(options, served.quantization, stored_in, served.precision)]
    allowed = max(usual, ROUNDING_FACTOR * served.rounding_nats)
    base = None if served.base is None else _numbers(served.base)
    effect = None if base is None else mean_distance(base, wanted)
    distance = Distance(
        rows=len(served.rows),
        tokens=len(wanted),
        of_parity_check=served.of_parity_check,
        mean_nats=mean_distance(said, wanted),
        max_nats=max(abs(a - b) for a, b in zip(said, wanted, strict=True)),
        mean_allowed_nats=allowed,
        greedy_agreement=_agreement(served.served, exported),
        adapter_effect_nats=effect,
        adapter_share=None if base is None else _share(said, wanted, base),
        quantization_gap_nats=quantization_gap_nats,
    )
    reason = _fault(distance)
    return ExportReplay(
        status="passed" if reason is None else "marked", reason=reason, distance=distance
    )


def bits_of(options: ExportOptions, base: Quantization | None, *computed_in: NumberFormat) -> str:
    """Return the key of ALLOWED_NATS for the coarsest numbers in a comparison.

    `base` is the quantization of the served base; what is exported has its dense weights.
    """
    is_rounded = options.merge_into == "dequantized"
    if "nf4" in (options.format, base) or options.quantization == "q4_k_m" or is_rounded:
        return "4 bits"
    if "int8" in (options.format, base) or options.quantization == "q8_0":
        return "8 bits"
    if options.format in ("gguf", "adapter-gguf"):  # llama.cpp computes in f16
        return "16 bits"
    return "fp32" if set(computed_in) == {"fp32"} else "16 bits"


def mean_distance(one: Sequence[float], other: Sequence[float]) -> float:
    pairs = list(zip(one, other, strict=True))
    return sum(abs(a - b) for a, b in pairs) / len(pairs) if pairs else 0.0


def _fault(found: Distance) -> str | None:
    if found.adapter_share is not None and found.adapter_share < LEAST_SHARE:
        return (
            f"The export has {max(0.0, found.adapter_share):.0%} of the adapter's effect: on these "
            "rows it answers like the base, not like the served model."
        )
    if found.mean_nats > found.mean_allowed_nats:
        return (
            f"Log-probabilities differ from the served model's by {found.mean_nats:.3g} nat on "
            f"average and up to {found.max_nats:.3g}; {found.mean_allowed_nats:.3g} are allowed "
            "for this number format."
        )
    return None


def _share(said: Sequence[float], wanted: Sequence[float], base: Sequence[float]) -> float | None:
    """Return the share of the adapter's effect; None if rounding or few tokens hide it."""
    effect = [b - w for b, w in zip(base, wanted, strict=True)]
    missing = [s - w for s, w in zip(said, wanted, strict=True)]
    size = math.sqrt(sum(each * each for each in effect))
    difference = math.sqrt(sum(each * each for each in missing))
    if mean_distance(base, wanted) < LEAST_EFFECT_NATS:
        return None
    if difference / size / math.sqrt(len(wanted)) > LARGEST_ERROR:
        return None
    return 1 - sum(d * a for d, a in zip(missing, effect, strict=True)) / size**2


def _agreement(served: Sequence[RowFigures], exported: Sequence[RowFigures]) -> float | None:
    pairs = [
        pair
        for one, other in zip(served, exported, strict=True)
        if one.preferred and other.preferred
        for pair in zip(one.preferred, other.preferred, strict=True)
    ]
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else None


def _numbers(rows: Sequence[RowFigures]) -> list[float]:
    return [logprob for row in rows for logprob in row.logprobs]
