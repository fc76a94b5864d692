"""Whether a Python source can be a grader: its syntax, its size and its function `grade`.

The source is read, never run.
"""

import ast
import warnings
from collections.abc import Iterator

from core.spec.grader import LONGEST_SOURCE_BYTES


class InvalidSource(ValueError):
    """A source cannot be a grader; the message says why."""


LONGEST_READ_BYTES = 64 * 1024
"""Python reads a source in one step, during which the process does nothing else: 64 KiB take up to
0.1 s. The sandbox finds the errors of longer ones."""


def check_source(source: str) -> None:
    """Raise InvalidSource unless the source has a function `grade` of two parameters.

    A long source needs no more than the name.
    """
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        raise InvalidSource("it is not valid Unicode") from None
    if size > LONGEST_SOURCE_BYTES:
        raise InvalidSource(f"it has {size:,} bytes in UTF-8; the most is {LONGEST_SOURCE_BYTES:,}")
    if size > LONGEST_READ_BYTES and "grade" in source:
        return
    defined = [] if size > LONGEST_READ_BYTES else [*_definitions(_parsed(source).body)]
    if not defined:
        raise InvalidSource("it defines no function grade(sample, item) outside of others")
    _check_last(defined[-1])


def _parsed(source: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            return ast.parse(source)
    except SyntaxError as error:
        where = f" in line {error.lineno}" if error.lineno else ""
        raise InvalidSource(f"Python cannot read it: {error.msg}{where}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or "it is nested too deeply"
        raise InvalidSource(f"Python cannot read it: {reason}") from None


def _definitions(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module that bind `grade`, also under conditions."""
    for statement in body:
        if "grade" in _bound_by(statement):
            yield statement
        elif isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
            yield from _inside(statement)


def _bound_by(statement: ast.stmt) -> list[str]:
    """Return the names that a statement binds by itself."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return [name]
        case ast.ImportFrom(names=names) | ast.Import(names=names):
            return [each.asname or each.name for each in names]
        case _:
            return []


def _inside(statement: ast.If | ast.Try | ast.With | ast.For | ast.While) -> Iterator[ast.stmt]:
    yield from _definitions(statement.body)
    if not isinstance(statement, ast.With):
        yield from _definitions(statement.orelse)
    if isinstance(statement, ast.Try):
        for handler in statement.handlers:
            yield from _definitions(handler.body)
        yield from _definitions(statement.finalbody)


def _check_last(statement: ast.stmt) -> None:
    """Raise InvalidSource if a function cannot be called with two values."""
    if isinstance(statement, ast.AsyncFunctionDef):
        raise InvalidSource("grade is an async function; make it a plain one")
    if not isinstance(statement, ast.FunctionDef):
        return
    given = statement.args
    most = len(given.posonlyargs) + len(given.args)
    least = most - len(given.defaults)
    needs_names = any(default is None for default in given.kw_defaults)
    if least > 2 or (most < 2 and given.vararg is None) or needs_names:
        raise InvalidSource("grade must take exactly two values: grade(sample, item)")
