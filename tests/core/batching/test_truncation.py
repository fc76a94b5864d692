import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.batching.rows import InvalidRow, LabelledRow, PairRow, RatedRow, Row, SourceTargetRow
from core.batching.truncation import cut, longest_sequence


class Specials:
    """As much of a tokenizer as truncation asks for: 1 opens a text, 2 closes it."""

    bos_token_id = 1
    all_special_ids = (1, 2)


def row(tokens, trained_from):
    return Row(5, tuple(tokens), tuple(index >= trained_from for index in range(len(tokens))))


def test_row_that_fits_stays_as_it_is():
    whole = row(range(10, 20), 3)
    assert cut(whole, 10, "end", Specials) is whole


def test_row_loses_its_end_or_its_start_but_not_what_opens_it():
    long = row([1, *range(10, 19)], 4)
    assert cut(long, 6, "end", Specials) == row([1, 10, 11, 12, 13, 14], 4)
    shorter = cut(long, 6, "start", Specials)
    assert shorter.tokens == (1, 14, 15, 16, 17, 18)
    assert shorter.trained == (False, True, True, True, True, True)


def test_first_token_that_is_left_is_never_trained():
    assert cut(row(range(10, 20), 1), 4, "start", Specials).trained == (False, True, True, True)


def test_row_without_a_trained_token_left_is_refused_with_its_line():
    with pytest.raises(InvalidRow, match=r"line 5: .* all its labelled tokens: .* keeps 6"):
        cut(row(range(10, 20), 7), 6, "end", Specials)
    untrained = row(range(10, 20), 99)  # refused elsewhere, for its own reason
    assert cut(untrained, 6, "end", Specials).targets == 0


def test_rated_answer_keeps_its_rating_and_a_trained_token():
    rated = RatedRow(5, (1, *range(10, 19)), (False,) * 4 + (True,) * 6, is_good=False)
    expected = RatedRow(5, (1, 10, 11, 12, 13, 14), (False,) * 4 + (True,) * 2, is_good=False)
    assert cut(rated, 6, "end", Specials) == expected
    with pytest.raises(
        InvalidRow, match=r"line 5: truncation removes all its labelled tokens: .* keeps 4"
    ):
        cut(rated, 4, "end", Specials)


@pytest.mark.parametrize("side", ["end", "start"])
def test_answers_of_a_pair_keep_the_same_end_of_their_prompt(side):
    prompt = [1, *range(10, 20)]
    pair = PairRow(5, row([*prompt, 30, 31, 32], 11), row([*prompt, 40], 11))
    shorter = cut(pair, 8, side, Specials)
    assert shorter.chosen == row([1, 16, 17, 18, 19, 30, 31, 32], 5)
    assert shorter.rejected == row([1, 16, 17, 18, 19, 40], 5)


def test_answer_that_is_too_long_alone_loses_its_end():
    prompt = [1, 10, 11]
    pair = PairRow(5, row([*prompt, *range(30, 50)], 3), row([*prompt, 40], 3))
    shorter = cut(pair, 8, "start", Specials)
    assert shorter.chosen == row([1, 11, 30, 31, 32, 33, 34, 35], 2)
    assert shorter.rejected == row([1, 11, 40], 2)


def test_answers_that_differ_only_beyond_the_limit_are_refused():
    pair = PairRow(5, row([1, *range(10, 30)], 2), row([1, *range(10, 29), 99], 2))
    with pytest.raises(InvalidRow, match=r"line 5: both answers are equal when truncated"):
        cut(pair, 10, "end", Specials)


def test_text_to_classify_keeps_the_tokens_around_it():
    text = LabelledRow(5, (1, *range(10, 20), 2), (0,))
    assert cut(text, 5, "end", Specials) == LabelledRow(5, (1, 10, 11, 12, 2), (0,))
    assert cut(text, 5, "start", Specials) == LabelledRow(5, (1, 17, 18, 19, 2), (0,))


def test_source_and_target_have_the_limit_each():
    pair = SourceTargetRow(5, (*range(10, 20), 2), (*range(30, 40), 2))
    assert longest_sequence(pair) == 11
    shorter = cut(pair, 4, "start", Specials)
    assert shorter == SourceTargetRow(5, (17, 18, 19, 2), (30, 31, 32, 2))
    short_target = SourceTargetRow(5, (*range(10, 20), 2), (30, 2))
    assert cut(short_target, 4, "end", Specials).target == (30, 2)


@given(
    st.integers(2, 40), st.integers(2, 40), st.integers(1, 20), st.integers(8, 50), st.booleans()
)
def test_limit_holds_and_both_prompts_stay_equal(chosen, rejected, prompt, limit, from_end):
    question = range(100, 100 + prompt)
    pair = PairRow(
        5,
        row([*question, *range(200, 200 + chosen)], prompt),
        row([*question, *range(300, 300 + rejected)], prompt),
    )
    shorter = cut(pair, limit, "end" if from_end else "start", Specials)
    assert longest_sequence(shorter) <= limit
    prompts = [
        [t for t, on in zip(r.tokens, r.trained, strict=True) if not on]
        for r in (shorter.chosen, shorter.rejected)
    ]
    assert prompts[0] == prompts[1] == list(question)[-len(prompts[0]) :]
    assert len(prompts[0]) >= 1
