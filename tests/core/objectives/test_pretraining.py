"""Continued pretraining against a plain loop of transformers on the same pieces of text."""

import random
from itertools import pairwise

import pytest
import torch

from core.batching.rows import InvalidRow
from core.datasets.formats import CompletionExample, TextExample
from core.objectives.pretraining import Pretraining


def texts(count, longest=40, seed=0):
    draw = random.Random(seed)
    return [
        (line, TextExample("".join(draw.choices("abcdefgh ", k=draw.randint(1, longest)))))
        for line in range(1, count + 1)
    ]


def test_every_token_of_a_text_and_its_end_are_trained(chat_tokenizer):
    (row,) = Pretraining(chat_tokenizer, 1024).rows([(3, TextExample("fox"))])
    assert chat_tokenizer.decode(row.tokens) == "fox<|im_end|>"
    assert (row.line, row.trained) == (3, (False, True, True, True))


def test_text_gets_the_tokens_that_the_tokenizer_puts_before_it(tiny_tokenizer):
    tokenizer = tiny_tokenizer("bart")
    (row,) = Pretraining(tokenizer, 1024).rows([(1, TextExample("fox"))])
    assert tokenizer.decode(row.tokens) == "<s>fox</s>"
    assert row.trained == (False, True, True, True, True)


@pytest.mark.parametrize("max_length", [8, 9, 41])
def test_long_text_becomes_pieces_that_train_every_token_once(chat_tokenizer, max_length):
    whole = Pretraining(chat_tokenizer, 1024).rows(texts(6))
    pieces = Pretraining(chat_tokenizer, max_length).rows(texts(6))
    assert max(piece.length for piece in pieces) <= max_length
    assert min(piece.targets for piece in pieces) >= 1
    for row in whole:
        own = [piece for piece in pieces if piece.line == row.line]
        assert all(not piece.trained[0] and all(piece.trained[1:]) for piece in own)
        assert row.tokens[1:] == tuple(token for piece in own for token in piece.tokens[1:])
        assert all(a.tokens[-1] == b.tokens[0] for a, b in pairwise(own))


def test_loss_is_that_of_transformers(adapted_of, tiny_model, chat_tokenizer):
    objective, adapted = Pretraining(chat_tokenizer, 20), adapted_of()
    rows = objective.rows(texts(6))
    sums = objective.loss(adapted, rows)
    reference, expected = tiny_model(), []
    with torch.no_grad():
        for row in rows:
            tokens = torch.tensor([row.tokens])
            expected.append(reference(tokens, labels=tokens).loss.item() * row.targets)
    assert sums.row_losses.tolist() == pytest.approx(expected, rel=1e-4)
    assert sums.targets == sum(row.length - 1 for row in rows)


def test_other_examples_are_refused_with_their_line(chat_tokenizer):
    with pytest.raises(InvalidRow, match=r"line 2: .*needs plain text"):
        Pretraining(chat_tokenizer, 64).rows([*texts(1), (2, CompletionExample("a", "b"))])
