"""Computes `similarity_values.json` with the packages that define the metrics.

They are large, and no dependency of this project. Run it in an environment of its own:

    pip install sacrebleu nltk rouge-score rapidfuzz snowballstemmer
    PYTHONPATH=. python tests/core/grading/make_similarity_values.py

All of them get the words of `core.grading.words`, so that the values compare the formulas and not
how a text is split; ROUGE splits the texts itself.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import snowballstemmer
from nltk.translate.gleu_score import sentence_gleu
from nltk.translate.meteor_score import single_meteor_score
from rapidfuzz import fuzz
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu

from core.grading.words import words_and_signs

PAIRS = [
    ("The cat sat on the mat.", "The cat sat on the mat."),
    ("The cat was sat on the mat.", "The cat sat on the mat."),
    ("on the mat sat the cat", "the cat sat on the mat"),
    ("This is cat", "This is a cat"),
    ("left right", "left right"),
    ("let go it", "let it go"),
    ("yes", "no"),
    ("Paris", "paris"),
    ("creates or updates a virtual machine scale set", "create or update a vm scale set"),
    (
        "Alimentum is located in the city centre. It is not family-friendly.",
        "There is a place in the city centre, Alimentum, that is not family-friendly.",
    ),
    (
        "It is a guide to action which ensures that the military always obeys the commands of the "
        "party",
        "It is a guide to action that ensures that the military will forever heed Party commands",
    ),
    ("a a a a a a a", "a b a"),
    ("the the the the the the the", "the cat is on the mat"),
    ("word", "a much longer reference than the one word that was said"),
    ("a much longer answer than the one word that was asked for", "word"),
    ("3.14 is pi, or 3,141 of 1,000", "pi is 3.14"),
    ("x86-64 snake_case don't", "x86 64 snake case dont"),
    ("running runners ran easily", "run runner runs easy"),
    ("entirely different words", "nothing here matches"),
    ("A B C D E F G H", "a b c d e f g h"),
]


class _NoSynonyms:
    """WordNet without an entry."""

    def synsets(self, word: str) -> list[Any]:
        return []


class _Stemmer:
    def __init__(self) -> None:
        self._stemmer = snowballstemmer.stemmer("english")

    def stem(self, word: str) -> str:
        return str(self._stemmer.stemWord(word))


def values(text: str, reference: str) -> dict[str, float]:
    ours, theirs = words_and_signs(text), words_and_signs(reference)
    split = {"tokenize": "none", "use_effective_order": True}
    orders = [f"rouge{order}" for order in (1, 2, 3, 4, 5, "L")]
    rouge = RougeScorer(orders).score(reference, text)
    return {
        "fuzzy_match": fuzz.ratio(text, reference) / 100,
        "bleu": sentence_bleu(" ".join(ours), [" ".join(theirs)], **split).score / 100,
        "gleu": sentence_gleu([theirs], ours),
        "meteor": single_meteor_score(theirs, ours, stemmer=_Stemmer(), wordnet=_NoSynonyms()),
        **{f"rouge_{name[5:].lower()}": rouge[name].fmeasure for name in orders},
    }


if __name__ == "__main__":
    packages = ("sacrebleu", "nltk", "rouge-score", "rapidfuzz", "snowballstemmer")
    document = {
        "made_with": {name: version(name) for name in packages},
        "pairs": [
            {"text": text, "reference": reference, "values": values(text, reference)}
            for text, reference in PAIRS
        ],
    }
    path = Path(__file__).with_name("similarity_values.json")
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
