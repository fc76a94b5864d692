"""The model card of a model without a job: an imported adapter, or the sum of several."""

from collections.abc import Sequence

from core.artifacts.card import front_matter
from core.artifacts.manifest import public_name
from core.artifacts.usage import usage
from core.spec.tuned import TunedSpec


def made_card(tuned: TunedSpec, origin: str, notes: Sequence[str]) -> str:
    """Return README.md: YAML front matter, then Markdown. `origin` is a sentence."""
    base = public_name(tuned.base)
    return "\n".join(
        [
            *front_matter(base, tuned),
            "",
            f"# Adapter for {base}",
            "",
            f"{origin} It works only with the base model `{base}`.",
            "",
            *(f"- {note}" for note in notes),
            *([""] if notes else []),
            "## Use",
            "",
            *usage(tuned),
        ]
    )
