"""Writes questions of reasoning-gym as JSON lines; requires this package.

python bench/reasoning_rows.py build/auto/reasoning_gym.jsonl
"""

import json
import sys
from pathlib import Path
from typing import Any

ROWS = 400
SEED = 7

TASKS: dict[str, dict[str, Any]] = {
    "chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
    "letter_counting": {"min_words": 3, "max_words": 6},
    "word_sorting": {"min_words": 3, "max_words": 4, "min_word_length": 3, "max_word_length": 6},
    "spell_backward": {"min_word_len": 3, "max_word_len": 6},
    "gcd": {},
    "number_sorting": {"min_numbers": 3, "max_numbers": 5},
}


def main(path: Path) -> None:
    import reasoning_gym  # type: ignore[import-not-found]

    with path.open("w", encoding="utf-8") as out:
        for task, options in TASKS.items():
            for row in reasoning_gym.create_dataset(task, size=ROWS, seed=SEED, **options):
                line = {"task": task, "question": row["question"], "answer": row["answer"]}
                out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
