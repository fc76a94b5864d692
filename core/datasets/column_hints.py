"""Suggests a `columns` mapping for a row of no known layout, from its column names and values."""

import json
from collections.abc import Collection, Iterable, Mapping

from core.datasets.json_values import Row
from core.datasets.labels import rating_of

_QUESTIONS = (
    *("question", "query", "problem", "instruction", "prompt", "input", "inputs"),
    *("user", "source"),
)
_ANSWERS = (
    *("answer", "response", "output", "completion", "solution", "answers", "reply", "target"),
    *("targets", "assistant", "generation", "generated_solution"),
)
_SUMMARIES = ("summary", "highlights")
_CONTEXTS = ("context", "passage", "input")
_SYSTEMS = ("system", "system_prompt")
_TEXTS = (
    *("text", "sentence", "content", "review", "document", "article", "tweet", "body", "passage"),
    *("utterance", "comment", "story", "code", "chat", "dialogue"),
)
_RATINGS = (
    *("label", "rating", "is_good", "good", "desirable", "accepted", "is_correct", "correct"),
    *("thumbs_up", "liked", "helpful", "kto_tag", "is_desirable", "thumbs", "feedback"),
)
_PAIRS = (
    *(("chosen_response", "rejected_response"), ("response_j", "response_k")),
    *(("preferred", "rejected"), ("accepted", "rejected"), ("better", "worse")),
    *(("winner", "loser"), ("positive", "negative")),
)
"""The columns of a better and a worse answer."""
_LABELS = ("label", "class", "category", "sentiment", "intent", "label_text", "coarse_label")


def suggested_columns(row: Row, known: Collection[str] = ()) -> dict[str, str] | None:
    """Return a mapping that gives the row a known layout; None if no mapping fits its columns.

    Lists of messages under the keys in `known` need no mapping.
    """
    others = {column: value for column, value in row.items() if column not in known}
    for mapping in (
        _turns(others, row),
        _two_answers(row),
        _rated_answer(row),
        _question_and_answer(row),
        _source_and_target(row),
        _text_and_label(row),
        _text(row),
    ):
        if mapping:
            changed = {key: column for key, column in mapping.items() if key != column}
            return _with_rating(changed or mapping, row)
    return None


def _with_rating(mapping: dict[str, str], row: Row) -> dict[str, str]:
    """Add `label` to a mapping for a rated answer: beside a mapping, it has to be mapped too."""
    is_rated = rating_of(row.get("label")) is not None
    if not is_rated or mapping.keys() & {"label", "text", "chosen"}:
        return mapping
    return {**mapping, "label": "label"}


def question_column(row: Row) -> str | None:
    """Return the column whose name suggests a question."""
    return _named(row, _QUESTIONS)


def rating_column(columns: Iterable[str]) -> str | None:
    """Return the column whose name suggests ratings of answers."""
    named = {column.lower(): column for column in columns}
    return next((named[name] for name in _RATINGS if name in named), None)


def mapping_json(mapping: Mapping[str, str]) -> str:
    """Return a mapping as a request writes it."""
    return json.dumps(mapping, ensure_ascii=False)


def _turns(others: Row, row: Row) -> dict[str, str] | None:
    """Map a column of `others` with a conversation, or with the completion of the row's prompt."""
    for column, value in others.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            last = value[-1] if isinstance(value[-1], dict) else {}
            if last.get("role") == "assistant" and "content" in last:
                continues = isinstance(row.get("prompt"), list) and value[0].get("role") != "user"
                return {"completion" if continues else "messages": column}
            if last.get("from") in ("gpt", "assistant", "chatgpt") and "value" in last:
                return {"conversations": column}
    return None


def _question_and_answer(row: Row) -> dict[str, str] | None:
    question = _named(row, _QUESTIONS)
    answer = _named(row, _ANSWERS) or _first_of_answers(row)
    if question is None or answer is None:
        return None
    if question == "prompt":
        return {"prompt": question, "completion": answer}
    mapping = {"instruction": question, "output": answer}
    others = {column: value for column, value in row.items() if column not in (question, answer)}
    if context := _named(others, _CONTEXTS):
        mapping["input"] = context
    if system := _named(others, _SYSTEMS):
        mapping["system"] = system
    return mapping


def _two_answers(row: Row) -> dict[str, str] | None:
    """Map a question with a better and a worse answer."""
    question = _named(row, _QUESTIONS)
    if question is None:
        return None
    for pair in _PAIRS:
        chosen, rejected = (_named(row, (name,), (str, list)) for name in pair)
        if chosen and rejected:
            key = "instruction" if question == "instruction" else "prompt"
            return {key: question, "chosen": chosen, "rejected": rejected}
    return None


def _rated_answer(row: Row) -> dict[str, str] | None:
    """Map a question, its answer, and a rating of the answer."""
    question, answer = _named(row, _QUESTIONS), _named(row, _ANSWERS)
    rated = {column.lower(): column for column, value in row.items() if isinstance(value, bool)}
    rating = next((rated[name] for name in _RATINGS if name in rated), None)
    if question is None or answer is None or rating is None:
        return None
    return {"prompt": question, "completion": answer, "label": rating}


def _source_and_target(row: Row) -> dict[str, str] | None:
    """Map a text and its summary, or the two languages of a translation."""
    text, summary = _named(row, _TEXTS), _named(row, _SUMMARIES)
    if text and summary:
        return {"prompt": text, "completion": summary}
    pair = row.get("translation")
    if isinstance(pair, dict) and len(pair) == 2:
        source, target = pair
        return {"prompt": f"translation.{source}", "completion": f"translation.{target}"}
    return None


def _first_of_answers(row: Row) -> str | None:
    """Return the path of an answer nested in a column, as in SQuAD."""
    for column in row:
        value = row[column]
        if column.lower() not in _ANSWERS:
            continue
        if isinstance(value, list) and value and isinstance(value[0], str):
            return f"{column}[0]"
        if not isinstance(value, dict):
            continue
        if isinstance(value.get("value"), str):
            return f"{column}.value"
        texts = value.get("text")
        if isinstance(texts, list) and texts and isinstance(texts[0], str):
            return f"{column}.text[0]"
    return None


def _text_and_label(row: Row) -> dict[str, str] | None:
    label = _named(row, _LABELS, (str, int, float))
    if label is None:
        return None
    others = {column: value for column, value in row.items() if column != label}
    text = _named(others, _TEXTS)
    return {"text": text, "label": label} if text else None


def _text(row: Row) -> dict[str, str] | None:
    text = _named(row, _TEXTS)
    return {"text": text} if text else None


def _named(row: Row, names: Iterable[str], kinds: type | tuple[type, ...] = str) -> str | None:
    """Return the column with the first matching name, ignoring case, and a value of `kinds`."""
    columns = {
        column.lower(): column
        for column, value in row.items()
        if isinstance(value, kinds) and not isinstance(value, bool) and len(column) <= 64
    }
    return next((columns[name] for name in names if name in columns), None)
