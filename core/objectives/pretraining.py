"""Next-token cross entropy on every token of plain text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.batching.render import render_examples
from core.batching.rows import Row
from core.datasets.formats import Example, TextExample
from core.models.heads import LossSums
from core.objectives.next_token import next_token_loss
from core.objectives.objective import Objective, only


@dataclass(frozen=True)
class Pretraining(Objective[Row]):
    """Trains complete texts with their end token; a text that is too long becomes several rows."""

    tokenizer: PreTrainedTokenizerFast
    max_length: int

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[Row]:
        texts = only(TextExample, examples, "plain text under 'text'")
        rows = render_examples(self.tokenizer, texts)
        return [piece for row in rows for piece in _pieces(row, self.max_length)]

    def loss(self, adapted: AdaptedModel, rows: Sequence[Row]) -> LossSums:
        return next_token_loss(adapted, rows)


def _pieces(row: Row, max_length: int) -> Iterator[Row]:
    """Split a row into rows of the same line.

    Each begins with the last token of the previous one, so that every token is trained.
    """
    for start in range(0, max(1, row.length - 1), max_length - 1):
        end = start + max_length
        yield Row(row.line, row.tokens[start:end], (False, *row.trained[start + 1 : end]))
