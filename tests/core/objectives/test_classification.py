"""Classification against transformers' own models and losses on padded batches."""

import random

import pytest
import torch

from core.adapters.adapted import AdaptedModel
from core.batching.rows import InvalidRow
from core.datasets.formats import LabelExample, TextExample
from core.models.attention import use_packed_attention
from core.objectives.classification import Classification, class_tokens, classify
from tests.core.tiny import DECODERS, ENCODERS

MODELS = (*ENCODERS, *DECODERS)
NAMES = ("even", "odd", "prime")


def labelled_texts(count, multi=False, seed=0):
    draw = random.Random(seed)
    rows = []
    for line in range(1, count + 1):
        text = "".join(draw.choices("abcdefgh ", k=draw.randint(1, 40)))
        labels = draw.sample(NAMES, draw.randint(0, 3)) if multi else [draw.choice(NAMES)]
        rows.append((line, LabelExample(text, tuple(labels), multi)))
    return rows


def fully_trained(model):
    """All of a model's parameters, with the layers of our own batches."""
    use_packed_attention(model)
    return AdaptedModel(model, dict(model.named_parameters()), None)


def padded(rows, pad_token):
    length = max(row.length for row in rows)
    tokens = [[*row.tokens] + [pad_token] * (length - row.length) for row in rows]
    mask = [[1] * row.length + [0] * (length - row.length) for row in rows]
    return {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}


PAD = 0  # stands in no text of the decoders' tokenizer, and is the padding of the encoders'


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [*((model_type, {}) for model_type in MODELS), ("modernbert", {"classifier_pooling": "mean"})],
)
def test_packed_logits_equal_those_of_transformers(tiny_model, tiny_tokenizer, model_type, changes):
    reference = tiny_model(model_type, labels=3, pad_token_id=PAD, **changes)
    tokenizer = tiny_tokenizer(model_type)
    rows = Classification(tokenizer, NAMES, False).rows(labelled_texts(7))
    adapted = fully_trained(tiny_model(model_type, labels=3, pad_token_id=PAD, **changes))
    with torch.no_grad():
        expected_BN = reference(**padded(rows, PAD)).logits
        found_BN = classify(adapted, [row.tokens for row in rows])
    torch.testing.assert_close(found_BN, expected_BN, atol=1e-5, rtol=1e-4)


def curve_of_transformers(model, rows, multi, batch_size, learning_rate):
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    model.config.problem_type = "multi_label_classification" if multi else None
    losses = []
    for start in range(0, len(rows), batch_size):
        step = rows[start : start + batch_size]
        if multi:
            labels = torch.zeros(len(step), len(NAMES))
            for index, row in enumerate(step):
                labels[index, list(row.labels)] = 1
        else:
            labels = torch.tensor([row.labels[0] for row in step])
        loss = model.train()(**padded(step, PAD), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("multi", [False, True], ids=["single", "multi"])
@pytest.mark.parametrize("model_type", ["bert", "modernbert", "llama"])
def test_loss_curve_is_that_of_a_plain_padded_loop_of_transformers(
    tiny_model, tiny_tokenizer, curve, model_type, multi
):
    objective = Classification(tiny_tokenizer(model_type), NAMES, multi)
    rows = objective.rows(labelled_texts(48, multi))
    reference = tiny_model(model_type, labels=3, pad_token_id=PAD)
    expected = curve_of_transformers(reference, rows, multi, 4, 1e-3)
    adapted = fully_trained(tiny_model(model_type, labels=3, pad_token_id=PAD))
    steps = curve(adapted, objective, rows, 4, 1e-3)
    assert [s.loss / s.targets for s in steps] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("multi", [False, True], ids=["single", "multi"])
def test_gradients_do_not_depend_on_the_split_into_micro_batches(
    tiny_model, tiny_tokenizer, gradients, multi
):
    objective = Classification(tiny_tokenizer("bert"), NAMES, multi)
    adapted = fully_trained(tiny_model("bert", labels=3))
    rows = objective.rows(labelled_texts(8, multi))
    whole, expected = gradients(adapted, objective, rows)
    split, found = gradients(adapted, objective, rows, budget_tokens=30)
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_right_are_the_most_probable_label_or_exactly_the_probable_ones(tiny_model, tiny_tokenizer):
    adapted = fully_trained(tiny_model("bert", labels=3))
    with torch.no_grad():
        adapted.model.classifier.weight.zero_()
        adapted.model.classifier.bias.copy_(torch.tensor([2.0, -1.0, 1.0]))
    tokenizer = tiny_tokenizer("bert")

    def right(multi, *labels):
        objective = Classification(tokenizer, NAMES, multi)
        rows = objective.rows([(1, LabelExample("ab", labels, multi))])
        return int(objective.loss(adapted, rows).correct)

    assert (right(False, "even"), right(False, "prime")) == (1, 0)
    assert (right(True, "even", "prime"), right(True, "even"), right(True, *NAMES)) == (1, 0, 0)


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "llama"])
def test_logits_of_a_bf16_base_with_a_trained_head_are_fp32(adapted_of, tiny_tokenizer, model_type):
    adapted = adapted_of(model_type, labels=3, dtype=torch.bfloat16)
    rows = Classification(tiny_tokenizer(model_type), NAMES, False).rows(labelled_texts(7))
    logits_BN = classify(adapted, [row.tokens for row in rows])
    assert logits_BN.dtype == torch.float32
    assert not torch.equal(logits_BN, logits_BN.bfloat16().float())


def test_texts_get_the_special_tokens_of_the_tokenizer(tiny_tokenizer):
    tokenizer = tiny_tokenizer("bert")
    ((*tokens,),) = class_tokens(tokenizer, ["ab"])
    assert tokenizer.convert_ids_to_tokens(tokens) == ["[CLS]", "ab", "[SEP]"]
    assert class_tokens(tokenizer, []) == []


@pytest.mark.parametrize(
    ("multi", "example", "reason"),
    [
        (False, LabelExample("a", ("odd", "even"), True), "has 2 labels; .* multi_label"),
        (False, LabelExample("a", (), True), "has 0 labels"),
        (True, LabelExample("a", ("odd", "weird"), True), "'weird' is not one of .*'even', 'odd'"),
        (False, TextExample("a"), "needs a text with its label"),
    ],
)
def test_bad_row_is_named(tiny_tokenizer, multi, example, reason):
    objective = Classification(tiny_tokenizer("bert"), NAMES, multi)
    with pytest.raises(InvalidRow, match=f"line 4: .*{reason}"):
        objective.rows([*labelled_texts(1), (4, example)])


def test_text_of_which_no_token_is_left_is_named(chat_tokenizer):
    objective = Classification(chat_tokenizer, NAMES, False)
    with pytest.raises(InvalidRow, match=r"line 4: .*returns no tokens for the text"):
        objective.rows([*labelled_texts(1), (4, LabelExample("", ("odd",), False))])
