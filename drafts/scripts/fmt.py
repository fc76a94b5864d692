def sub(p, *pairs):
    s=open(p).read()
    for a,b in pairs:
        assert a in s, (p,a)
        s=s.replace(a,b,1)
    open(p,'w').write(s)
sub('core/spec/run.py',('''    "chat", "prompt-completion", "instruction", "preference", "text", "classification"
''','''    "chat",
    "prompt-completion",
    "instruction",
    "preference",
    "unpaired-preference",
    "text",
    "classification",
'''))
sub('core/catalog/formats.py',('''        "text": FormatFacts(''','''        "unpaired-preference": FormatFacts(
            "rated answers", "rows with 'prompt', 'completion' and a 'label' of true or false"
        ),
        "text": FormatFacts('''))
sub('core/datasets/examples.py',('''@dataclass(frozen=True)
class TextExample:''','''@dataclass(frozen=True)
class RatedExample:
    """An answer to a prompt, and whether it is a good one.

    The answer is trained alone, as that of a `PreferenceExample`.
    """

    answer: ChatExample | CompletionExample
    is_good: bool


@dataclass(frozen=True)
class TextExample:'''),('''Example = ChatExample | CompletionExample | PreferenceExample | TextExample | LabelExample''','''Example = (
    ChatExample | CompletionExample | PreferenceExample | RatedExample | TextExample | LabelExample
)'''))
sub('core/datasets/formats.py',('''    PreferenceExample,
''','''    PreferenceExample,
    RatedExample,
'''),('''    "PreferenceExample",
''','''    "PreferenceExample",
    "RatedExample",
'''))
sub('core/datasets/summary.py',('''    PreferenceExample,
''','''    PreferenceExample,
    RatedExample,
'''),('''        case CompletionExample() | TextExample()''','''        case RatedExample():
            return _has_tools(example.answer)
        case CompletionExample() | TextExample()'''),('''        case TextExample() | LabelExample():
            return len''','''        case RatedExample():
            return _characters(example.answer)
        case TextExample() | LabelExample():
            return len'''))
sub('core/datasets/labels.py',('''"""The labels of a row, always as text: 1, 1.0 and "1" are the same label."""
''','''"""The labels of a row, always as text: 1, 1.0 and "1" are the same label; and ratings.

A rating is true or false, in a table of text as a word.
"""
'''),('''def _label(''','''def is_rating(value: Any) -> bool:
    """Say whether a value says of an answer that it is good or bad."""
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in _RATINGS)


def parse_rating(row: Mapping[str, Any], faults: Faults) -> bool:
    """Return what `label` says of an answer, and note what is wrong with it."""
    label = row.get("label")
    if not is_rating(label):
        faults.add("label", f"{is_what(label)}; write true for a good completion, false for a bad one")
    return label if isinstance(label, bool) else _RATINGS.get(str(label).lower(), False)


_RATINGS = {"true": True, "false": False}


def _label('''))
sub('core/datasets/forms.py',('''    {"prompt": ..., "completion": ...}                            -> CompletionExample
''','''    {"prompt": ..., "completion": ..., "label": true}             -> RatedExample
    {"prompt": ..., "completion": ...}                            -> CompletionExample
'''),('''    if isinstance(row.get("label"), bool):
        cure = "keep the rows that are good and leave the column out"
        faults.add("label", f"says whether a completion is good, which is not learnt from; {cure}")
''',''),('''def _side(''','''def _parse_rated(row: Mapping[str, Any], faults: Faults) -> Example:
    """Read TRL's unpaired preferences: a completion that is good or bad."""
    is_good = parse_rating(row, faults)
    answer = _parse_completion(row, faults)
    if isinstance(answer, ChatExample):
        _refuse_weights(row["completion"], faults)
    return RatedExample(answer, is_good)


def _refuse_weights(completion: Any, faults: Faults) -> None:
    for index, message in enumerate(completion if isinstance(completion, list) else ()):
        if isinstance(message, dict) and message.get("weight") == 0:
            cure = "the whole completion is learnt from; remove it"
            faults.add(f"completion[{index}].weight", f"is 0; {cure}")


def _has_rating(row: Mapping[str, Any]) -> bool:
    return is_rating(row["label"])


def _side('''),('''    Form(
        "prompt-completion",
''','''    Form(
        "unpaired-preference",
        ("prompt", "completion", "label"),
        ("prompt", "completion", "label", "tools", "system"),
        _parse_rated,
        telling=(),
        fits=_has_rating,
    ),
    Form(
        "prompt-completion",
'''),('''    PreferenceExample,
''','''    PreferenceExample,
    RatedExample,
'''),('import parse_label, parse_labels','import is_rating, parse_label, parse_labels, parse_rating'))
sub('core/datasets/forms.py',('def _parse_completion(row: Mapping[str, Any], faults: Faults) -> Example:','def _parse_completion(\n    row: Mapping[str, Any], faults: Faults\n) -> ChatExample | CompletionExample:'))
sub('core/datasets/read.py',('''    if form.format != file_format:
''','''    if form.format == "prompt-completion" and file_format == "unpaired-preference":
        # its label is missing or no rating, which the form of the file says best
        form = next(each for each in FORMS if each.format == file_format)
    if form.format != file_format:
'''),('import KEYS, form_of','import FORMS, KEYS, form_of'))
sub('core/datasets/advice.py',('''_LABELS = (''','''_RATINGS = (
    *("label", "rating", "is_good", "good", "desirable", "accepted", "is_correct", "correct"),
    *("thumbs_up", "liked", "helpful"),
)
_LABELS = ('''),('''        _turns(others),
''','''        _turns(others),
        _rated_answer(row),
'''),('''def _source_and_target(''','''def _rated_answer(row: Mapping[str, Any]) -> dict[str, str] | None:
    """Return a question, its answer, and whether that is good."""
    question, answer = _named(row, _QUESTIONS), _named(row, _ANSWERS)
    rated = {column.lower(): column for column, value in row.items() if isinstance(value, bool)}
    rating = next((rated[name] for name in _RATINGS if name in rated), None)
    if question is None or answer is None or rating is None:
        return None
    return {"prompt": question, "completion": answer, "label": rating}


def _source_and_target('''))
sub('core/batching/rows.py',('''@dataclass(frozen=True)
class LabelledRow:''','''@dataclass(frozen=True)
class RatedRow(Row):
    """An answer to a prompt that is judged whole, as a good one or a bad one."""

    is_good: bool

    @property
    def targets(self) -> int:
        return 1


@dataclass(frozen=True)
class LabelledRow:'''))
sub('core/batching/truncation.py',('''    return Row(row.line, tuple(row.tokens[index] for index in kept), (False, *trained))''','''    tokens = tuple(row.tokens[index] for index in kept)
    return replace(row, tokens=tokens, trained=(False, *trained))'''),('''        if row.targets and not shorter.targets:''','''        if any(row.trained) and not any(shorter.trained):'''))
sub('core/training/replayed.py',('''            case CompletionExample():
                yield''','''            case RatedExample():
                yield from self._prompts(example.answer)
            case CompletionExample():
                yield'''),('''    PreferenceExample,
''','''    PreferenceExample,
    RatedExample,
'''))
sub('api/jobs/objective.py',('''    suited = _listed(map(repr, methods_of(format_)), "or")
''','''    suited = [repr(each) for each in methods_of(format_)]
    use = f"; use the method {_listed(suited, 'or')}" if suited else ", which no method learns from"
'''),('''        f"The training file holds {FORMATS[format_].holds}; use the method {suited}. "
''','''        f"The training file holds {FORMATS[format_].holds}{use}. "
'''))
sub('core/catalog/objectives.py',('Target = Literal["tokens", "pairs", "rows"]','Target = Literal["tokens", "pairs", "answers", "rows"]'))
sub('core/artifacts/card.py',('''        "pairs": "Targets are the pairs of answers.",
''','''        "pairs": "Targets are the pairs of answers.",
        "answers": "Targets are the answers, each of them rated.",
'''))
