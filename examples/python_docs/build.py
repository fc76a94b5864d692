"""Make the example dataset: which standard-library module does a docstring belong to?

    python -m examples.python_docs.build

Reads the sources of the running Python and writes `train.jsonl`, `validation.jsonl` and
`heldout.jsonl` beside this file. The result differs between patch releases of Python, so the
three files are committed; README.md says which release they come from.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from core.models.tiny_build.stdlib import definitions, one_line, source_files

HERE = Path(__file__).parent

SYSTEM = "Which Python module has this docstring?"
MODULES = (
    "asyncio", "decimal", "distutils", "email", "http", "importlib", "ipaddress", "logging",
    "mailbox", "multiprocessing", "tarfile", "tkinter", "turtle", "unittest", "urllib", "xml",
)  # fmt: skip
IMPLEMENTED_IN = {"_pydecimal": "decimal"}
ROWS_PER_MODULE = 230  # so that always answering with the largest class scores low
SHORTEST_CHARACTERS, LONGEST_CHARACTERS = 30, 350
VALIDATION_ROWS, HELDOUT_ROWS = 200, 300

# Two docstrings that share half of their word triples are taken for copies of one another.
NEAR_DUPLICATE_OVERLAP = 0.5

Row = tuple[str, str]  # (docstring, module)


def opening(docstring: str) -> str:
    """Return the docstring if it is short, else its first paragraph."""
    docstring = docstring.strip()
    if len(docstring) > LONGEST_CHARACTERS:
        docstring = docstring.split("\n\n", 1)[0].strip()
    return docstring


def rows() -> Iterator[Row]:
    """Yield every usable docstring of the chosen modules."""
    for file in source_files():
        top = file.path.split("/")[0].removesuffix(".py")
        module = IMPLEMENTED_IN.get(top, top)
        if module not in MODULES:
            continue
        for node in definitions(ast.parse(file.text)):
            text = opening(ast.get_docstring(node) or "")
            if SHORTEST_CHARACTERS <= len(text) <= LONGEST_CHARACTERS:
                yield text, module


def shuffled(rows: Iterable[Row], purpose: str) -> list[Row]:
    """Return the rows in a pseudo-random order that depends only on `purpose`."""

    def digest(row: Row) -> bytes:
        return hashlib.sha256("\0".join((purpose, *row)).encode()).digest()

    return sorted(rows, key=digest)


def triples(text: str) -> set[tuple[str, ...]]:
    """Return all sequences of three words, ignoring case, digits and punctuation."""
    words = ["", *re.findall(r"[a-z]+", text.lower()), ""]
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def without_near_duplicates(rows: list[Row]) -> list[Row]:
    """Return the rows without those that share half of their word triples with an earlier row."""
    kept: list[Row] = []
    kept_triples: list[set[tuple[str, ...]]] = []
    rows_with_triple: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        mine = triples(row[0])
        neighbours = {index for triple in mine for index in rows_with_triple.get(triple, ())}
        if any(
            len(mine & kept_triples[index])
            >= NEAR_DUPLICATE_OVERLAP * min(len(mine), len(kept_triples[index]))
            for index in neighbours
        ):
            continue
        for triple in mine:
            rows_with_triple.setdefault(triple, []).append(len(kept))
        kept.append(row)
        kept_triples.append(mine)
    return kept


def capped(rows: list[Row]) -> list[Row]:
    """Return the first `ROWS_PER_MODULE` rows of each module."""
    left = dict.fromkeys(MODULES, ROWS_PER_MODULE)
    kept = []
    for row in rows:
        left[row[1]] -= 1
        if left[row[1]] >= 0:
            kept.append(row)
    return kept


def chat(row: Row) -> dict[str, list[dict[str, str]]]:
    """One row in OpenAI's chat format."""
    docstring, module = row
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": docstring},
            {"role": "assistant", "content": module},
        ]
    }


def split(rows: list[Row]) -> dict[str, list[Row]]:
    """Held-out rows first, then validation, then the rest for training.

    What is measured must occur literally in a source, or it could not be found there and
    kept from the base model's training text. A docstring written with escapes goes to training.
    """
    library = "\n".join(one_line(file.text) for file in source_files())
    end = HELDOUT_ROWS + VALIDATION_ROWS
    parts: dict[str, list[Row]] = {"heldout": [], "validation": [], "train": []}
    for index, row in enumerate(rows):
        if index >= end or one_line(row[0]) not in library:
            parts["train"].append(row)
        else:
            parts["heldout" if index < HELDOUT_ROWS else "validation"].append(row)
    return parts


def build() -> None:
    """Write the three files."""
    chosen = capped(without_near_duplicates(shuffled(set(rows()), "choice")))
    for name, part in split(shuffled(chosen, "split")).items():
        with (HERE / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for row in part:
                file.write(json.dumps(chat(row), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    build()
