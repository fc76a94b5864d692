"""Rated answers, as TRL takes them, as examples and as rows; and KTO over them."""

import random

from core.batching.rows import RatedRow
from core.datasets.formats import CompletionExample, RatedExample
from core.objectives.answers import Reference
from core.objectives.kto import Kto


def answers(count, seed=0):
    """Prompts with a rated answer each, as TRL takes them."""
    draw = random.Random(seed)

    def letters():
        return "".join(draw.choices("abcdefgh ", k=draw.randint(2, 20)))

    return [
        {"prompt": letters() + "=", "completion": letters() + ".", "label": index % 3 != 0}
        for index in range(count)
    ]


def examples(rows):
    return [
        (line, RatedExample(CompletionExample(row["prompt"], row["completion"]), row["label"]))
        for line, row in enumerate(rows, start=1)
    ]


def kto(tokenizer, beta=0.5, weights=(1.0, 1.0), continues=False, max_length=200):
    return Kto(tokenizer, beta, *weights, max_length, Reference(continues))


def row(line, prompt, answer, is_good=True):
    tokens = (*prompt, *answer)
    return RatedRow(line, tokens, (False,) * len(prompt) + (True,) * len(answer), is_good)
