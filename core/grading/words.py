"""Texts as words, for the metrics that compare words.

Scripts without spaces between words (Chinese, Japanese, Thai, …) give a word per character. Vowel
signs and accents of their own belong to the character before them. For English text, `words` are
those of the package rouge-score; it drops all letters but a to z, so that other scripts have none.
"""

import re
from functools import cache
from itertools import islice
from unicodedata import category

from core.grading.result import GraderFailed

MOST_WORDS = 16_384
"""Of a text. The time of all metrics grows with it, up to about a second."""

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_LAST_MARK = 0x1E950
_JOINERS = "\u200c\u200d"


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of words, and of words and signs.

    Python's `\\w` has no marks, so their class is made of the Unicode data when it is first needed.
    """
    marks = "".join(c for c in map(chr, range(0x300, _LAST_MARK)) if category(c)[0] == "M")
    character = rf"[^\W_{_UNSPACED}][{marks}{_JOINERS}]*"
    word = rf"(?:{character})+|[{_UNSPACED}][{marks}]*"
    return re.compile(word), re.compile(rf"\d+(?:[.,]\d+)+|{word}|\S")


def words(text: str) -> list[str]:
    """Return the words in lower case, without signs. Raises GraderFailed for too many."""
    return _found(_patterns()[0], text.lower())


def words_and_signs(text: str) -> list[str]:
    """Return words, numbers such as 3.14, and each sign. Raises GraderFailed for too many."""
    return _found(_patterns()[1], text)


def _found(pattern: re.Pattern[str], text: str) -> list[str]:
    found = [match[0] for match in islice(pattern.finditer(text), MOST_WORDS + 1)]
    if len(found) > MOST_WORDS:
        raise GraderFailed(
            "other_error",
            f"A text has more than {MOST_WORDS:,} words, the most that this metric compares. Use a "
            "string_check or python grader for texts of this length.",
        )
    return found
