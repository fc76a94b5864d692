"""The verdict on an import, as a worker gives it."""

from core.parity.asking import Replies, Reply
from core.parity.verdict import judge
from core.spec.making import MadeBundle
from core.spec.parity import Parity


def judged(found: MadeBundle, figures: tuple[float, ...]) -> Parity:
    """Return the verdict on an engine that gives these figures."""
    replies, left = [], list(figures)
    for row in found.reference.rows:
        own, left = left[: len(row.figures)], left[len(row.figures) :]
        replies.append(Reply(getattr(row, "prompt_ids", ()), tuple(own)))
    return judge(found.reference, Replies(tuple(replies)))
