"""The grammars of text that is not JSON: a regular expression, a choice, or a grammar itself.

All become llguidance's dialect of Lark. Their cost is bounded before they are compiled.
"""

import re

from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from core.engine.text.grammar_builder import GrammarBuilder
from core.engine.text.pattern_cost import TooCostly, refuse_costly_grammar, refuse_costly_pattern
from core.engine.text.schema_cost import MAX_LITERAL_CHARACTERS, MAX_SCHEMA_CHARACTERS
from core.errors import InvalidRequest
from core.spec.generation import ChoiceOutput, GrammarOutput, RegexOutput

_DIRECTIVES = re.compile(r"%\s*(json|regex|lark|llguidance)\b")
"""Of llguidance, which would bypass the limits of schemas and patterns."""

_FAILURES = (
    *(GbnfToLarkError, TooCostly, RecursionError),
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError),
)
"""What reading a grammar may raise. llguidance's converter of GBNF does not check its input."""


def regex_rule(grammar: GrammarBuilder, spec: RegexOutput) -> str:
    """Return the rule of a text that a regular expression matches as a whole."""
    if len(spec.regex) > MAX_LITERAL_CHARACTERS:
        raise _too_long("regular expression", len(spec.regex), MAX_LITERAL_CHARACTERS, spec.param)
    if not spec.regex:
        raise unusable("it is empty", spec.param)
    try:
        refuse_costly_pattern(spec.regex)
    except TooCostly as problem:
        raise unusable(str(problem), spec.param) from None
    return grammar.rule(f"/{_delimited(spec.regex)}/")


def choice_rule(grammar: GrammarBuilder, spec: ChoiceOutput) -> str:
    """Return the rule of one of several texts."""
    longest, total = max(map(len, spec.choices)), sum(map(len, spec.choices))
    if longest > MAX_LITERAL_CHARACTERS:
        raise _too_long("choice", longest, MAX_LITERAL_CHARACTERS, spec.param)
    if total > MAX_SCHEMA_CHARACTERS:
        raise _too_long("list of choices", total, MAX_SCHEMA_CHARACTERS, spec.param)
    return grammar.one_of(dict.fromkeys(spec.choices))


def grammar_rule(grammar: GrammarBuilder, spec: GrammarOutput) -> str:
    """Return the rule of a text of the request's own grammar."""
    if len(spec.grammar) > MAX_SCHEMA_CHARACTERS:
        raise _too_long("grammar", len(spec.grammar), MAX_SCHEMA_CHARACTERS, spec.param)
    if found := _DIRECTIVES.search(spec.grammar):
        raise unusable(
            f"it contains {found[0]}; a JSON schema or a regular expression is a field of its own",
            spec.param,
        )
    try:
        lark = any_to_lark(spec.grammar) if "::=" in spec.grammar else spec.grammar
        refuse_costly_grammar(lark)
    except _FAILURES as problem:
        raise unusable(str(problem), spec.param) from None
    return grammar.rule(f"%lark {{\n{lark}\n}}")


def unusable(reason: str, param: str) -> InvalidRequest:
    """Return the error for a text constraint that cannot be enforced."""
    return InvalidRequest(
        f"{param} cannot be enforced: {reason[:500]}", param=param, code="invalid_grammar"
    )


def _too_long(what: str, characters: int, limit: int, param: str) -> InvalidRequest:
    return unusable(f"the {what} has {characters} characters; the limit is {limit}", param)


def _delimited(regex: str) -> str:
    """Return a regular expression that can stand between slashes, on one line."""
    escaped = re.sub(r"\\.|/", lambda found: r"\/" if found[0] == "/" else found[0], regex)
    escaped = escaped.replace("\r", r"\r").replace("\n", r"\n")
    return escaped.replace("::=", r"\x3a:=")  # by which other servers recognize GBNF
