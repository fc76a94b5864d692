"""The rows of a job, as far as they are known before they are tokens."""

import math
from dataclasses import dataclass
from itertools import pairwise

from core.catalog.objectives import OBJECTIVES, rows_of
from core.planning.fields import Fields
from core.spec.dataset import DatasetFormat, DatasetReport
from core.spec.job import JobSpec

BYTES_PER_CHARACTER = 1.4
"""Of a JSON file, with keys and quotes; for reports of older versions, which lack the sum."""

TEMPLATE_TOKENS: dict[DatasetFormat, int] = {
    "chat": 12,
    "preference": 12,
    "unpaired-preference": 12,
}
"""About what a chat template adds to a sequence; special tokens add two to others."""

SPECIAL_TOKENS = 2

CHARACTERS_PER_TOKEN = ((8, 1.0), (12, 3.4), (14, 4.0), (15, 4.1), (17, 4.5), (18, 4.7))
"""(binary logarithm of the vocabulary, characters of English): bytes, the shipped base, that of
`bench/`, Llama 2, Llama 3, Gemma."""

SPREAD = 0.6
"""The standard deviation of the lengths of rows, as a share of their mean."""

LENGTH_AROUND_A_TOKEN = 1.7
"""The mean length of the sequence that a token is in, as a multiple of the mean length: long rows
have more tokens, and few are very long."""


@dataclass(frozen=True)
class Workload:
    """The training rows of a run. A token that a pair has twice counts twice."""

    rows: int
    mean_tokens: float
    """That the model processes per row."""
    longest_tokens: int
    """Of the longest row."""
    sequences_per_row: int = 1
    labelled_share: float = 0.6
    """The share of tokens that have a loss, and so logits."""
    is_exact: bool = False
    """Whether the tokens were counted, not estimated from characters."""

    @property
    def tokens(self) -> float:
        """The tokens of one epoch."""
        return self.rows * self.mean_tokens

    @property
    def longest_sequence(self) -> int:
        return math.ceil(self.longest_tokens / self.sequences_per_row)

    @property
    def attended(self) -> float:
        """The mean over tokens of the length of their sequence."""
        mean = self.mean_tokens / self.sequences_per_row
        return min(self.longest_sequence, mean * LENGTH_AROUND_A_TOKEN)

    def tokens_of_largest_step(self, batch_size: int) -> float:
        """Estimate the tokens of the step with the most of them."""
        batch = min(batch_size, self.rows)
        with_longest = self.longest_tokens + (batch - 1) * self.mean_tokens
        spread = min(SPREAD * self.mean_tokens, self.longest_tokens - self.mean_tokens)
        likely = batch * self.mean_tokens + 2.5 * spread * math.sqrt(batch)
        return min(max(with_longest, likely), batch * self.longest_tokens)


REFERENCE = Workload(rows=1000, mean_tokens=512, longest_tokens=512)
"""The rows that the table of strategies assumes."""


def characters_per_token(vocabulary: int) -> float:
    """Return about how many characters of English a token of such a vocabulary has."""
    size = math.log2(vocabulary)
    for (left, low), (right, high) in pairwise(CHARACTERS_PER_TOKEN):
        if size <= right:
            return low + (high - low) * max(0.0, size - left) / (right - left)
    return CHARACTERS_PER_TOKEN[-1][1]


def workload_of(spec: JobSpec, report: DatasetReport, file_bytes: int, fields: Fields) -> Workload:
    """Estimate the rows of a job from the report about its training file.

    `spec.training.max_length` limits every sequence; a longer row would be truncated or refused.
    """
    objective = OBJECTIVES[spec.objective.type]
    rows = rows_of(spec.objective.type, report.format, report.rows)
    pairs = objective.target == "pairs"
    characters = report.characters or file_bytes / BYTES_PER_CHARACTER
    sequences = 2 if pairs else 1
    ratio = characters_per_token(fields.size("vocab_size"))
    limit = spec.training.max_length * sequences
    added = SPECIAL_TOKENS
    if report.format is not None:
        added = TEMPLATE_TOKENS.get(report.format, SPECIAL_TOKENS)
    mean = characters / max(1, rows) / ratio + added * sequences
    longest = report.longest_characters * sequences / ratio + added * sequences
    longest = max(longest, mean)
    trained = max(1, rows - math.floor(rows * spec.evaluation.split))
    return Workload(
        rows=trained,
        mean_tokens=min(mean, limit),
        longest_tokens=math.ceil(min(longest, limit)),
        sequences_per_row=sequences,
        labelled_share=1.0 if spec.objective.type == "pretraining" else 0.6,
    )
