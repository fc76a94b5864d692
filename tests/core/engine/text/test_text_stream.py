"""Streamed text is the whole text up to its first stop string, however tokens cut it."""

from hypothesis import example, given
from hypothesis import strategies as st

from core.engine.text.text_stream import Piece, TextStream
from core.spec.generation import GeneratedToken


def record(token_bytes: bytes) -> GeneratedToken:
    return GeneratedToken(
        token=token_bytes.decode(errors="replace"), bytes=tuple(token_bytes), logprob=-1.0
    )


def stream(tokens: list[bytes], stop: tuple[str, ...] = ()) -> tuple[TextStream, list[Piece]]:
    """Push tokens until a stop string, as the engine does; return every piece sent."""
    text = TextStream(stop)
    pieces = []
    for token in tokens:
        pieces.append(text.push(token, record(token)))
        if text.stopped:
            break
    pieces.append(text.finish())
    return text, [piece for piece in pieces if piece is not None]


def cut_at_first_stop(text: str, stop: tuple[str, ...]) -> str:
    """The obvious way: read character by character until one of them is complete."""
    for end in range(1, len(text) + 1):
        complete = [each for each in stop if each and text[:end].endswith(each)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


stops = st.lists(st.text("ab🙂", max_size=4), max_size=3).map(tuple)
tokens_of_valid_text = st.tuples(
    st.text("ab🙂é", max_size=24), st.lists(st.integers(1, 5), max_size=60)
).map(lambda drawn: split(drawn[0].encode(), drawn[1]))
tokens_of_any_bytes = st.lists(st.binary(max_size=4), max_size=12)


def split(data: bytes, lengths: list[int]) -> list[bytes]:
    """Cut bytes into tokens of these lengths, the rest into single bytes."""
    tokens = []
    for length in lengths:
        tokens.append(data[:length])
        data = data[length:]
    return [token for token in tokens if token] + [bytes([byte]) for byte in data]


@given(tokens_of_valid_text | tokens_of_any_bytes, stops)
@example([b"a", b"b", b"a"], ("aba", "b"))
@example([b"ab"], ("abb", "b"))
@example([b"\xf0\x9f", b"a"], ())
def test_streamed_text_is_the_full_text_cut_at_the_first_stop(tokens, stop):
    full = b"".join(tokens).decode("utf-8", errors="replace")
    text, pieces = stream(tokens, stop)
    expected = cut_at_first_stop(full, stop)
    assert "".join(piece.text for piece in pieces) == expected
    assert text.stopped == (expected != full)


@given(tokens_of_valid_text, stops)
def test_every_piece_is_whole_characters_and_held_back_only_while_it_may_become_a_stop(
    tokens, stop
):
    text = TextStream(stop)
    sent, pushed = "", b""
    for token in tokens:
        piece = text.push(token)
        pushed += token
        sent += piece.text if piece else ""
        if text.stopped:
            break
        available = pushed.decode("utf-8", errors="ignore")
        assert available.startswith(sent)
        held = available[len(sent) :]
        assert not held or any(each != held and each.startswith(held) for each in stop)


@given(tokens_of_valid_text | tokens_of_any_bytes, stops)
def test_logprobs_come_once_in_order_and_with_their_text(tokens, stop):
    _, pieces = stream(tokens, stop)
    records = [each for piece in pieces for each in piece.logprobs]
    assert records == [record(token) for token in tokens[: len(records)]]
    sent_text, sent_tokens = "", b""
    for piece in pieces:
        sent_text += piece.text
        sent_tokens += b"".join(bytes(each.bytes) for each in piece.logprobs)
        # Text goes out no later than the record; a character may wait for its last byte.
        decoded = sent_tokens.decode("utf-8", errors="ignore")
        if not stop:
            assert len(sent_text) >= len(decoded)


@given(tokens_of_valid_text | tokens_of_any_bytes)
def test_without_a_stop_no_logprob_is_lost(tokens):
    _, pieces = stream(tokens)
    assert [each for piece in pieces for each in piece.logprobs] == list(map(record, tokens))


def test_tokens_of_a_stop_string_are_dropped_and_the_one_it_cuts_is_kept():
    text, pieces = stream([b"one", b" tw", b"o th", b"ree"], stop=("two",))
    assert text.stopped
    assert "".join(piece.text for piece in pieces) == "one "
    assert [each.token for piece in pieces for each in piece.logprobs] == ["one", " tw"]


def test_an_emoji_of_four_tokens_is_sent_once_and_whole():
    text = TextStream()
    pieces = [text.push(bytes([byte]), record(bytes([byte]))) for byte in "🙂".encode()]
    assert pieces[:3] == [None, None, None]
    assert pieces[3].text == "🙂"
    assert len(pieces[3].logprobs) == 4
