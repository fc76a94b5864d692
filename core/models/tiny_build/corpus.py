"""The base model's training text: documents from the standard library, in two forms.

Plain documents are whole sources and reference pages under a header with their name, so that the
model links names to contents. Conversations (`conversations.py`) are made from the same text.
The docstrings that the example dataset keeps for measuring never occur in either.
"""

import ast
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from core.models.tiny_build.stdlib import (
    SourceFile,
    definitions,
    docstring_node,
    language_reference,
    one_line,
    source_files,
)


def measured_texts(dataset: Path) -> list[str]:
    """The user messages of the example dataset's held-out and validation rows, each on one line."""
    return [
        one_line(message["content"])
        for name in ("heldout.jsonl", "validation.jsonl")
        for line in (dataset / name).read_text(encoding="utf-8").splitlines()
        for message in json.loads(line)["messages"]
        if message["role"] == "user"
    ]


def occurring(texts: Iterable[str], document: str) -> list[str]:
    """Return the one-line `texts` that occur in `document`, regardless of its white space.

    A text can begin and end inside a word of the document, but its inner words must be words
    there. Looking for those first reduces the search of the library to seconds.
    """
    line = one_line(document)
    words = set(line.split(" "))
    return [text for text in texts if words.issuperset(text.split(" ")[1:-1]) and text in line]


def without_docstrings(text: str, unwanted: list[str]) -> str:
    """Python source `text` less each docstring that contains an `unwanted` one-line text."""
    lines = text.splitlines(keepends=True)
    for node in definitions(ast.parse(text)):
        statement = docstring_node(node)
        if statement is None:
            continue
        if occurring(unwanted, ast.get_docstring(node) or ""):
            blank_out(lines, statement, replacement="..." if len(node.body) == 1 else "")
    return "".join(lines)


def blank_out(lines: list[str], statement: ast.Expr, replacement: str) -> None:
    """Replace `statement` in place; the lines it leaves empty become empty strings."""
    assert statement.end_lineno is not None and statement.end_col_offset is not None
    first, last = statement.lineno - 1, statement.end_lineno - 1
    # `ast` counts columns in UTF-8 bytes.
    before = lines[first].encode()[: statement.col_offset].decode()
    after = lines[last].encode()[statement.end_col_offset :].decode()
    lines[first : last + 1] = [""] * (last - first + 1)
    if replacement or before.strip() or after.strip():
        lines[first] = before + replacement + after


def sources(unwanted: list[str]) -> Iterator[SourceFile]:
    """The standard library's sources less the unwanted texts.

    A source that still contains one, in a comment for example, is left out.
    """
    for file in source_files():
        present = occurring(unwanted, file.text)
        kept = without_docstrings(file.text, present) if present else file.text
        if not occurring(present, kept):
            yield SourceFile(file.path, kept)


def plain_documents(unwanted: list[str]) -> dict[str, str]:
    """Name to text of each plain document: every source, and every page of the reference."""
    documents = {file.path: f"# {file.path}\n\n{file.text}" for file in sources(unwanted)}
    for topic, page in language_reference().items():
        if not occurring(unwanted, page):
            documents[f"help/{topic}"] = f"# help/{topic}\n\n{page}"
    return documents
