"""Python sources of graders: what is refused before anything runs."""

import pytest

from core.grading.source import LONGEST_READ_BYTES, InvalidSource, check_source

GOOD = "def grade(sample, item):\n    return 1.0\n"


@pytest.mark.parametrize(
    "source",
    [
        GOOD,
        "from typing import Any\n\ndef grade(sample: dict, item: Any) -> float:\n    return 1.0",
        "def grade(*values):\n    return 1",
        "def grade(sample, item, limit=3, *, strict=True):\n    return 1",
        "grade = lambda sample, item: 1.0",
        "grade: object = max",
        "try:\n    import numpy\nexcept ImportError:\n    pass\nelse:\n    "
        "def grade(sample, item):\n        return 1",
        "if True:\n    from helpers import score as grade",
        "def grade(x):\n    pass\n" + GOOD,
        "import re\nPATTERN = '\\d'\n" + GOOD,
        "# é\n" + GOOD,
        GOOD + "x = 1\n" * 40_000,
        "grade = (" + " " * LONGEST_READ_BYTES,
    ],
)
def test_source_with_a_function_is_accepted(source: str) -> None:
    check_source(source)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "defines no function"),
        ("def score(sample, item):\n    return 1", "defines no function"),
        ("class Grader:\n    def grade(self, sample, item):\n        return 1", "no function"),
        ("def grade(sample, item)\n    return 1", "expected ':' in line 1"),
        ("def grade(sample, item):\nreturn 1", "line 2"),
        ("print 'x'", "line 1"),
        ("def grade(sample):\n    return 1", "exactly two"),
        ("def grade(sample, item, more):\n    return 1", "exactly two"),
        ("def grade(sample, item, *, needed):\n    return 1", "exactly two"),
        ("async def grade(sample, item):\n    return 1", "async"),
        ("x = 1\0", "cannot read"),
        ("\ud800", "Unicode"),
        ("(" * 5000 + ")" * 5000, "cannot read"),
        ("x = " + "-" * 60_000 + "1", "cannot read"),
        ("x = " + "1+" * 30_000 + "1", "cannot read|no function"),
        ("x = 1\n" * 40_000, "no function"),
        ("#" * (256 * 1024 + 1), "262,145 bytes"),
        ("#" + "é" * 131_072, "262,145 bytes"),
    ],
)
def test_source_that_cannot_grade_says_why(source: str, reason: str) -> None:
    with pytest.raises(InvalidSource, match=reason):
        check_source(source)
