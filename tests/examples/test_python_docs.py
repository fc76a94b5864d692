"""The example dataset is well-formed, fair, and unknown to the base model where it measures."""

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

from core.models.tiny_build.conversations import conversations
from core.models.tiny_build.corpus import (
    measured_texts,
    occurring,
    plain_documents,
    without_docstrings,
)
from core.models.tiny_build.stdlib import definitions
from examples.python_docs.build import (
    LONGEST_CHARACTERS,
    MODULES,
    NEAR_DUPLICATE_OVERLAP,
    SYSTEM,
    triples,
)

FOLDER = Path(__file__).parents[2] / "examples" / "python_docs"
PARTS = ("train", "validation", "heldout")


def rows(part: str) -> list[tuple[str, str]]:
    """The (docstring, module) pairs of a part, having checked the form of its lines."""
    pairs = []
    for line in (FOLDER / f"{part}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert list(row) == ["messages"]
        system, user, assistant = row["messages"]
        assert system == {"role": "system", "content": SYSTEM}
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        pairs.append((user["content"], assistant["content"]))
    return pairs


@pytest.fixture(scope="module")
def corpus() -> dict[str, str]:
    """What the base model would read with the Python that runs the tests."""
    return plain_documents(measured_texts(FOLDER))


@pytest.mark.parametrize(
    ("part", "least"), [("train", 1800), ("validation", 200), ("heldout", 290)]
)
def test_part_has_rows_of_the_stated_form(part: str, least: int) -> None:
    pairs = rows(part)
    assert len(pairs) >= least
    assert {module for _, module in pairs} == set(MODULES)
    assert max(len(docstring) for docstring, _ in pairs) <= LONGEST_CHARACTERS


@pytest.mark.parametrize("part", PARTS)
def test_no_single_answer_scores_high(part: str) -> None:
    counts = Counter(module for _, module in rows(part))
    assert max(counts.values()) / counts.total() < 0.15


def test_no_two_rows_are_near_duplicates() -> None:
    everything = [triples(docstring) for part in PARTS for docstring, _ in rows(part)]
    with_triple: dict[tuple[str, ...], list[int]] = {}
    for index, mine in enumerate(everything):
        for other in {other for triple in mine for other in with_triple.get(triple, ())}:
            shared = len(mine & everything[other])
            shorter = min(len(mine), len(everything[other]))
            assert shared < NEAR_DUPLICATE_OVERLAP * shorter
        for triple in mine:
            with_triple.setdefault(triple, []).append(index)


@pytest.mark.slow
def test_measured_docstrings_are_in_no_document_of_the_corpus(corpus: dict[str, str]) -> None:
    measured = measured_texts(FOLDER)
    assert len(measured) == len(rows("validation")) + len(rows("heldout"))
    for name, text in corpus.items():
        assert occurring(measured, text) == [], name
        if name.endswith(".py"):  # as Python reads it, too: an escape could hide a docstring
            nodes = definitions(ast.parse(text))
            docstrings = "\n".join(ast.get_docstring(node) or "" for node in nodes)
            assert occurring(measured, docstrings) == [], name


def test_docstring_of_the_training_part_is_found_in_the_corpus(corpus: dict[str, str]) -> None:
    docstring = "Return true if this widget is mapped."
    assert docstring in {one for one, _ in rows("train")}
    assert occurring([docstring], corpus["tkinter/__init__.py"]) == [docstring]


@pytest.mark.slow
def test_conversations_contain_neither_measured_docstrings_nor_the_task(
    corpus: dict[str, str],
) -> None:
    said = list(conversations(corpus, seed=0))
    text = "\n".join(message["content"] for turns in said for message in turns)
    assert occurring(measured_texts(FOLDER), text) == []
    assert SYSTEM not in text
    assert not {turns[-1]["content"] for turns in said} & set(MODULES)


def test_removing_a_docstring_leaves_the_rest_of_the_source() -> None:
    source = 'def f():\n    """Say\n    é."""\n    return 1\n\nclass C:\n    """Say é."""\n'
    assert without_docstrings(source, ["Say é."]) == (
        "def f():\n    return 1\n\nclass C:\n    ...\n"
    )


def test_removing_a_docstring_keeps_other_docstrings() -> None:
    source = 'def f():\n    """Keep me."""\n'
    assert without_docstrings(source, ["Say é."]) == source
