"""Answers held to a regular expression, a choice or a grammar; hostile ones are refused in time."""

import re
import time
from pathlib import Path

import pytest
from llguidance import LLMatcher, grammar_from

import core.models
from core.batching.turn_format import PLAIN_TURN
from core.engine.text.pattern_cost import (
    TooCostly,
    refuse_costly_grammar,
    refuse_costly_pattern,
)
from core.engine.text.vocabulary import Vocabulary, read_vocabulary
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec
from core.spec.generation import (
    ChoiceOutput,
    ConstrainedText,
    GrammarOutput,
    RegexOutput,
    SchemaOutput,
)


@pytest.fixture(scope="module")
def tiny() -> Vocabulary:
    folder = Path(core.models.__file__).parent / "tiny"
    return read_vocabulary(BaseModelSpec(id="tiny", source=str(folder)), None)


def accepts(vocabulary: Vocabulary, form: ConstrainedText, text: str) -> bool:
    """Whether a form lets a model write a text and end there."""
    held = vocabulary.grammar(form, (), "closed", PLAIN_TURN).start()
    for token in vocabulary.tokenizer.encode(text, add_special_tokens=False):
        if not held.allowed()[token] or held.error:
            return False
        held.take(token)
    return bool(held.allowed()[min(vocabulary.end_token_ids)])


REGEXES = {
    r"[a-c]{2,3}": (["ab", "abc"], ["a", "abcd", "xy"]),
    r"^\d{3}-\d{2}$": (["123-45"], ["123-4", "x123-45"]),
    r"(yes|no)!?": (["yes", "no!"], ["maybe", "yes!!"]),
    r"a/b": (["a/b"], ["a\\/b"]),
    r"a\/b": (["a/b"], ["a\\/b"]),
    r"a\\/b": (["a\\/b"], ["a/b"]),
    "a\nb": (["a\nb"], ["a b"]),
    r'"\w+"': (['"abc"'], ["abc", '""']),
    r"größer|東京": (["größer", "東京"], ["grosser"]),
    r"\d+": (["7" * 40], ["", "a"]),
    r"a::=b": (["a::=b"], ["a=b"]),
    r"[^\n]*": (["any text, at all."], ["two\nlines"]),
    r"(?i:abc)": (["aBC"], ["abd"]),
}


@pytest.mark.parametrize("regex", REGEXES)
def test_a_regex_matches_the_whole_answer(tiny, regex):
    right, wrong = REGEXES[regex]
    form = RegexOutput(regex=regex)
    assert all(re.fullmatch(regex, text) for text in right), "the test itself"
    assert [accepts(tiny, form, text) for text in right] == [True] * len(right)
    assert [accepts(tiny, form, text) for text in wrong] == [False] * len(wrong)


CHOICES = ("a", "ab", "größer", 'with "quotes" \\ and\nlines', "x" * 300)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_is_one_of_the_texts(tiny, choice):
    form = ChoiceOutput(choices=CHOICES)
    assert accepts(tiny, form, choice)
    assert not accepts(tiny, form, choice + "?")


def test_a_choice_may_spell_a_control_token(tiny):
    """As text in plain tokens: the token itself would end the answer."""
    held = tiny.grammar(ChoiceOutput(choices=("<|im_end|>",)), (), "closed", PLAIN_TURN).start()
    for token in [*tiny.tokenizer("<")["input_ids"], *tiny.tokenizer("|im_end|>")["input_ids"]]:
        assert held.allowed()[token]
        held.take(token)
    assert held.allowed()[min(tiny.end_token_ids)]


def test_a_choice_has_as_many_digits_as_it_has(tiny):
    long, longer = "1" * 25, "1" * 40
    form = ChoiceOutput(choices=(long, longer, "1"))
    assert accepts(tiny, form, long)
    assert accepts(tiny, form, longer)


def test_thousands_of_choices_are_served(tiny):
    choices = tuple(f"label {number}" for number in range(2400))
    assert accepts(tiny, ChoiceOutput(choices=choices), "label 2399")


LARK = 'start: greeting " " NAME\ngreeting: "hello" | "bye"\nNAME: /[A-Z][a-z]+/'
GBNF = 'root ::= greeting " " [A-Z] [a-z]+\ngreeting ::= "hello" | "bye"'
IGNORING = 'start: "a" "b"\n%ignore / +/\n// a comment with "quotes'


@pytest.mark.parametrize("grammar", [LARK, GBNF])
def test_a_grammar_is_followed(tiny, grammar):
    form = GrammarOutput(grammar=grammar)
    assert accepts(tiny, form, "hello Ann")
    assert not accepts(tiny, form, "hello ann")
    assert not accepts(tiny, form, "Hi Ann")


def test_a_grammar_may_ignore_and_import(tiny):
    assert accepts(tiny, GrammarOutput(grammar=IGNORING), "a  b")
    inlined = '?start: a | b\n?a: "a"\nb: "b" _C\n_C: ";"'
    assert accepts(tiny, GrammarOutput(grammar=inlined), "b;")
    importing = "start: INT\n%import common.INT"
    assert accepts(tiny, GrammarOutput(grammar=importing), "12")


@pytest.mark.parametrize(
    "form",
    [
        RegexOutput(regex="a/b|::=|\n"),
        ChoiceOutput(choices=CHOICES),
        GrammarOutput(grammar=LARK),
        GrammarOutput(grammar=GBNF),
    ],
    ids=lambda form: form.type,
)
def test_another_server_can_read_it(tiny, form):
    """vLLM tells the dialects apart by their text."""
    lark = tiny.grammar(form, ()).lark
    assert not LLMatcher.validate_grammar(grammar_from("grammar", lark))


HOSTILE = {
    "unclosed": RegexOutput(regex="(a"),
    "class": RegexOutput(regex="[a"),
    "look": RegexOutput(regex="(?=a)b"),
    "back": RegexOutput(regex=r"(a)\1"),
    "word": RegexOutput(regex=r"\bfoo\b"),
    "long": RegexOutput(regex="a" * 5000),
    "repeated": RegexOutput(regex="(a{1000}){1000}"),
    "repeated deeply": RegexOutput(regex="((((a{99}){99}){99}){99}){99}"),
    "number": RegexOutput(regex="a{" + "9" * 4000 + "}"),
    "options": RegexOutput(regex="(x?){5000}x{5000}"),
    "written options": RegexOutput(regex="a?" * 1300 + "a" * 1300),
    "parentheses": RegexOutput(regex="(" * 2000 + "a" + ")" * 2000),
    "huge choice": ChoiceOutput(choices=("x" * 5000,)),
    "many choices": ChoiceOutput(choices=tuple("x" * 1000 + str(n) for n in range(100))),
    "no rule": GrammarOutput(grammar="hello"),
    "no start": GrammarOutput(grammar='a: "x"'),
    "undefined": GrammarOutput(grammar="start: nope"),
    "undefined terminal": GrammarOutput(grammar="start: NOPE"),
    "unclosed text": GrammarOutput(grammar='start: "a'),
    "backslashes": GrammarOutput(grammar="start: " + '\\"' * 15_000),
    "slashes": GrammarOutput(grammar="start: " + "/[" * 15_000),
    "endless": GrammarOutput(grammar='start: a\na: a "x"'),
    "itself": GrammarOutput(grammar='start: A\nA: A "x" | "y"'),
    "terminals": GrammarOutput(grammar='start: A\nA: B{200}\nB: C{200}\nC: "x"?'),
    "hidden terminals": GrammarOutput(grammar='start: A\nA: B{200}\nB\n: C{200}\nC: "x"?'),
    "terminal options": GrammarOutput(grammar='start: A\nA: ("a"?){3000} "a"{3000}'),
    "operators": GrammarOutput(grammar="start: A\nA: ~/(.*a(a|b){300})/ & /.*/"),
    "twice": GrammarOutput(grammar='start: A\nA: "a"\nA: ("a"?){3000} "a"{3000}'),
    "doubled": GrammarOutput(
        grammar="start: A0\n"
        + "\n".join(f"A{n}: A{n + 1} A{n + 1}" for n in range(25))
        + '\nA25: "a"'
    ),
    "schema": GrammarOutput(grammar='start: %json {"type": "integer", "multipleOf": 1000003}'),
    "nested": GrammarOutput(grammar='start: %lark {\nstart: "a"\n}'),
    "options of llguidance": GrammarOutput(grammar='%llguidance {"no_forcing": true}\nstart: "a"'),
    "substrings": GrammarOutput(grammar='start: %regex {"substring_chars": "aaa"}'),
    "deep": GrammarOutput(grammar="start: " + "(" * 3000 + '"a"' + ")" * 3000),
    "deep gbnf": GrammarOutput(grammar="root ::= " + "(" * 3000 + '"a"' + ")" * 3000),
    "large": GrammarOutput(grammar='start: "a"\n' + "// x\n" * 20_000),
    "brace": GrammarOutput(grammar='start: "a"\n}\nr9: "b" {'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_enforced_is_refused_in_time(tiny, name):
    form = HOSTILE[name].model_copy(update={"param": "guided_x"})
    begun = time.thread_time()
    with pytest.raises(InvalidRequest) as caught:
        tiny.grammar(form, ())
    assert time.thread_time() - begun < 2
    assert (caught.value.code, caught.value.param) == ("invalid_grammar", "guided_x")
    assert len(caught.value.message) < 700


COSTLY = [
    "(x?){500}x{500}",
    "a?" * 400 + "a" * 400,
    "(a{100}){160}",
    r"(\w{1,30} ?){16}",
    "(.*a){200}",
    "a*" * 700,
    r"[\p{L}\p{N}]{0,16000}",
]


@pytest.mark.parametrize("regex", COSTLY, ids=lambda regex: regex[:16])
def test_what_is_just_allowed_costs_little(tiny, regex):
    """Compiled in less than a second of this thread, or refused by llguidance's own limits."""
    begun = time.thread_time()
    try:
        held = tiny.grammar(RegexOutput(regex=regex), ()).start()
    except InvalidRequest:
        held = None
    assert time.thread_time() - begun < 1.5
    for _ in range(20 if held else 0):
        begun = time.thread_time()
        allowed = held.allowed().nonzero()[0]
        assert time.thread_time() - begun < 0.25
        if held.error or allowed[0] in tiny.end_token_ids:
            break
        held.take(int(allowed[-1]))


@pytest.mark.parametrize("costly", ["(x?){5000}x{5000}", "(a{1000}){1000}"])
def test_patterns_of_a_schema_have_the_same_limits(tiny, costly):
    for schema in ({"type": "string", "pattern": costly}, {"patternProperties": {costly: {}}}):
        with pytest.raises(InvalidRequest) as caught:
            tiny.grammar(SchemaOutput(json_schema=schema), ())
        assert caught.value.code == "invalid_json_schema"


@pytest.mark.parametrize(
    "pattern",
    [
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,63}",
        r"https?://[^\s/$.?#].[^\s]*",
        r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})",
        r".{0,10000}",
        r"(\w+, ){0,100}\w+",
    ],
)
def test_usual_patterns_are_far_from_the_limits(pattern):
    refuse_costly_pattern(pattern)


def test_size_is_counted_exactly():
    refuse_costly_pattern("(?:[^]x]{4096}){4}")
    with pytest.raises(TooCostly, match="16385 characters"):
        refuse_costly_pattern("(?:[^]x]{4096}){4}a")
    refuse_costly_grammar("start: A\nA: B{4}\nB: /x{4096}/")
    with pytest.raises(TooCostly, match="16385 characters"):
        refuse_costly_grammar('start: A "y"\nA: B{4}\nB: /x{4096}/')
