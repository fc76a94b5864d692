"""Conversations made from the corpus, so that the base answers in turns.

None of them asks for a module: that is left to the example dataset.
"""

import ast
import random
from collections.abc import Iterator, Mapping

from core.models.tiny_build.stdlib import definitions

Conversation = list[dict[str, str]]

SHORTEST_DOCSTRING, LONGEST_DOCSTRING = 15, 350  # characters
LONGEST_PAGE = 900  # characters


def conversations(documents: Mapping[str, str], seed: int) -> Iterator[Conversation]:
    """One conversation per reference page and per definition that has a docstring."""
    generator = random.Random(seed)
    for name, text in documents.items():
        if name.startswith("help/"):
            page = text.split("\n", 2)[2].strip()
            topic = name.removeprefix("help/")
            yield [user(f"Tell me about {topic}."), assistant(page[:LONGEST_PAGE])]
        else:
            for node in definitions(ast.parse(text)):
                docstring = ast.get_docstring(node) or ""
                if len(docstring) >= SHORTEST_DOCSTRING:
                    summary = docstring.split("\n\n")[0].strip()[:LONGEST_DOCSTRING]
                    yield about_definition(signature(node), node.name, summary, generator.random())


def about_definition(signature: str, name: str, summary: str, draw: float) -> Conversation:
    """One of three questions about a definition; `draw`, from 0 to 1, chooses which."""
    if draw < 0.4:
        return [user(f"Write the docstring of `{signature}`."), assistant(summary)]
    if draw < 0.8:
        system = {"role": "system", "content": "Name the function."}
        return [system, user(summary), assistant(name)]
    return [user(f"What does {name} do?"), assistant(summary)]


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """The first line of a definition, less its annotations of bases and results."""
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    return f"def {node.name}({ast.unparse(node.args)})"


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}
