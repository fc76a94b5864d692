"""Faults of preference methods that people have reported elsewhere, each tried here.

The number of a report stands with each; what it says was found out from its text, and none of its
code is used. `test_kto.py`, `test_orpo.py` and `test_simpo.py` compare whole runs with TRL's.
"""

import copy
import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from core.batching.rows import InvalidRow, PairRow, RatedRow, Row
from core.batching.truncation import cut
from core.datasets.formats import CompletionExample, PreferenceExample, parse_row
from core.objectives.answers import Reference
from core.objectives.kto import mismatched
from core.objectives.orpo import Orpo
from core.objectives.simpo import Simpo
from core.spec.strategy import Ia3Spec, LoraSpec
from tests.conversations import answer, user
from tests.core.objectives.rated import answers, examples, kto
from tests.core.objectives.rated import row as rated_row
from tests.templates import template_tokenizer


def rated(tokenizer, labels):
    data = [row | {"label": label} for row, label in zip(answers(len(labels)), labels, strict=True)]
    return kto(tokenizer).rows(examples(data))


@pytest.mark.parametrize("labels", [[True] * 4, [False] * 4, [True], [False]])
def test_step_of_only_good_or_only_bad_answers_has_a_finite_loss(
    adapted_of, noisy, chat_tokenizer, gradients, labels
):
    """trl#1380, trl#1447: the mean of no answers is not a number; trl#2554: a batch of one"""
    objective, adapted = kto(chat_tokenizer), adapted_of()
    rows = rated(chat_tokenizer, [*labels, True, False])
    objective.prepare(adapted, rows, 4096)
    noisy(adapted)
    sums, found = gradients(adapted, objective, rows[: len(labels)])
    assert math.isfinite(sums.loss) and sums.targets == len(labels)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert any(gradient.abs().max() > 0 for gradient in found.values())


@pytest.mark.parametrize("count", range(2, 8))
def test_no_answer_counts_as_one_to_another_prompt_beside_its_own(count):
    """trl#1911, LlamaFactory#7509: the middle one of an odd number does if the order is reversed"""
    rows = [rated_row(line, (line,), (100 + line,)) for line in range(count)]
    for own, other in mismatched(rows, 9).items():
        assert other.tokens[:1] == own.tokens[:1] and other.tokens[1:] != own.tokens[1:]


@pytest.mark.parametrize("order", ["side by side", "good ones first"])
def test_good_and_bad_answers_have_the_share_in_z_that_they_have_in_the_rows(order):
    """trl#1402: z needs the answers that the rewards are of, not those of one kind"""
    rows = [
        rated_row(2 * prompt + good, (prompt,), (100 + 2 * prompt + good,), is_good=bool(good))
        for prompt in range(5)
        for good in (1, 0)
    ]
    if order == "good ones first":
        rows.sort(key=lambda row: not row.is_good)
    found = mismatched(rows, 9)
    assert sorted(other.tokens[1:] for other in found.values()) == sorted(
        row.tokens[1:] for row in rows
    )
    prompt_of = {row.tokens[1:]: row.tokens[:1] for row in rows}
    assert all(prompt_of[other.tokens[1:]] != own.tokens[:1] for own, other in found.items())


def test_reference_point_is_the_mean_over_all_micro_batches(adapted_of, noisy, chat_tokenizer):
    """align-anything#215: only the last batch was left; trl#2153: one per micro-batch"""
    objective, adapted = kto(chat_tokenizer, continues=True), noisy(adapted_of())
    rows = rated(chat_tokenizer, [True, False] * 4)
    objective.prepare(adapted, rows, 4096)
    with torch.no_grad():
        for parameter in adapted.parameters:
            parameter.zero_()  # rewards are positive: the base is better than noise
    found = []
    for budget in (4096, 1):
        objective.begin_step(adapted, rows, budget, lambda: False)
        found.append(objective._kl)
    assert found[0] == pytest.approx(found[1], rel=1e-4) and found[0] > 0.01


@pytest.mark.parametrize("strategy", [LoraSpec(rank=4, dropout=0.5), Ia3Spec()])
def test_reference_has_no_dropout(adapted_of, noisy, chat_tokenizer, strategy):
    """unsloth-zoo#912: the model was still in training mode"""
    adapted = noisy(adapted_of(strategy=strategy))
    rows = rated(chat_tokenizer, [True, False])
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        adapted.model.train()
        reference = Reference(continues=True)
        reference.compute(adapted, rows, lambda row: (row,), 4096)
        found.append(reference.of(rows))
    assert found[0] == found[1]


def test_reference_is_the_base_where_whole_modules_are_trained(
    adapted_of, noisy, chat_tokenizer, tiny_model
):
    """peft#736: a disabled adapter kept its copies of modules"""
    strategy = Ia3Spec(modules_to_save=("lm_head", "model.norm"))
    adapted = noisy(adapted_of(strategy=strategy))
    untouched = adapted_of(strategy=strategy)
    rows = rated(chat_tokenizer, [True, False])
    found = []
    for each in (adapted, untouched):
        reference = Reference(continues=False)
        reference.compute(each, rows, lambda row: (row,), 4096)
        found.append(reference.of(rows))
    assert found[0] == found[1]


@pytest.mark.parametrize("mean", [-1e-5, -1e-4, -1e-3, -0.1, -math.log(2), -5.0, -50.0])
def test_log_odds_keep_their_digits_at_both_ends(adapted_of, chat_tokenizer, monkeypatch, mean):
    """trl#3237, trl#4763, axolotl#3910, ColossalAI#6407: 1 - p cancels where p is nearly 1"""
    objective = Orpo(chat_tokenizer, beta=1.0)
    pair = PreferenceExample(CompletionExample("a", "b"), CompletionExample("a", "c"))
    rows = objective.rows([(1, pair)])
    means_A = torch.tensor([mean, -1.0], requires_grad=True)
    monkeypatch.setattr("core.objectives.orpo.mean_log_probabilities", lambda *_: means_A)
    loss = objective.loss(adapted_of(), rows).loss
    loss.backward()
    exact_A = torch.tensor([mean, -1.0], dtype=torch.float64, requires_grad=True)
    log_odds_A = exact_A - torch.log(-torch.expm1(exact_A))
    expected = -exact_A[0] - logsigmoid(log_odds_A[0] - log_odds_A[1])
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert means_A.grad.tolist() == pytest.approx(exact_A.grad.tolist(), rel=1e-3)


@torch.no_grad()
def test_rewards_do_not_grow_with_the_length(adapted_of, chat_tokenizer):
    """SimPO#4, SimPO#32, LlamaFactory#7301: of means, not of sums"""
    adapted = adapted_of()
    for parameter in adapted.model.lm_head.parameters():
        parameter.zero_()  # every token is as likely as any other
    pair = PreferenceExample(CompletionExample("a", "b"), CompletionExample("a", "c d e f g h"))
    for objective, expected in (
        (Simpo(chat_tokenizer, beta=2.0, gamma=0.5), -logsigmoid(torch.tensor(-0.5)).item()),
        (Orpo(chat_tokenizer, beta=1.0), math.log(adapted.model.config.vocab_size) + math.log(2)),
    ):
        sums = objective.loss(adapted, objective.rows([(1, pair)]))
        assert sums.loss.item() == pytest.approx(expected, rel=1e-5)


def test_short_answer_beside_a_long_one_is_not_cut_to_nothing(adapted_of, chat_tokenizer):
    """trl#6548: both lost the excess of the longer one, and the mean of no token is not a number"""

    def long(prompt, length):
        return Row(
            1,
            (*range(5, 5 + prompt), *range(40, 40 + length)),
            (False,) * prompt + (True,) * length,
        )

    pair = cut(PairRow(1, long(3, 60), long(3, 2)), 20, "end", chat_tokenizer)
    assert (pair.chosen.length, pair.rejected.targets) == (20, 2)
    loss = Simpo(chat_tokenizer, beta=2.0, gamma=1.0).loss(adapted_of(), [pair]).loss
    assert loss.isfinite()


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "deepseek_r1_distill", "glm4moe"])
def test_both_answers_continue_one_prompt_and_lose_nothing(name):
    """trl#6433: templates open a thought in the prompt, which one answer closes at once"""
    tokenizer = template_tokenizer(name)
    thoughtful = answer("It is Oslo.", reasoning_content="Norway is a country.")
    row = {"prompt": [user("Capital?")], "chosen": [thoughtful], "rejected": [answer("Bergen.")]}
    example = parse_row(row, "preference")
    (found,) = Orpo(tokenizer, beta=0.1).rows([(1, example)])
    starts = [each.trained.index(True) for each in (found.chosen, found.rejected)]
    prompts = [
        each.tokens[:start]
        for each, start in zip((found.chosen, found.rejected), starts, strict=True)
    ]
    assert prompts[0] == prompts[1]
    chosen = tokenizer.decode(found.chosen.tokens[starts[0] :])
    rejected = tokenizer.decode(found.rejected.tokens[starts[1] :])
    assert "Norway is a country." in chosen and "It is Oslo." in chosen and "Bergen." in rejected


def test_end_of_text_stands_once(chat_tokenizer):
    """trl#1591: it was appended to answers that already had it; trl#1464: no beginning of text"""
    end = chat_tokenizer.eos_token
    pair = PreferenceExample(CompletionExample("a=", f"b{end}"), CompletionExample("a=", "c"))
    (row,) = Orpo(chat_tokenizer, beta=0.1).rows([(1, pair)])
    for each in (row.chosen, row.rejected):
        assert each.tokens.count(chat_tokenizer.eos_token_id) == 1
        assert each.tokens[-1] == chat_tokenizer.eos_token_id and each.trained[-1]


def test_tokenizer_without_an_end_of_text_is_named(chat_tokenizer):
    """trl#5632: the end None was appended"""
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(InvalidRow, match=r"line 1: the tokenizer .* no end-of-text token"):
        kto(tokenizer).rows(examples(answers(1)))


def test_prompt_is_not_trained_on(adapted_of, chat_tokenizer):
    """trl#1676, trl#2502: the cross entropy of ORPO counted the prompt"""
    objective, adapted = Orpo(chat_tokenizer, beta=0.0 + 1e-9), adapted_of()
    pair = PreferenceExample(
        CompletionExample("hgfedcba=", "b"), CompletionExample("hgfedcba=", "c")
    )
    rows = objective.rows([(1, pair)])
    with torch.no_grad():
        sums = objective.loss(adapted, rows)
        own = rows[0].chosen
        logits_TV = adapted.model(torch.tensor([own.tokens]), segment_lengths=(own.length,)).logits[
            0
        ]
    found_T = torch.log_softmax(logits_TV, -1)
    start = own.trained.index(True)
    expected = -sum(found_T[i - 1, own.tokens[i]].item() for i in range(start, own.length)) / (
        own.length - start
    )
    assert sums.loss.item() == pytest.approx(expected, rel=1e-5)


def test_preferences_become_a_good_and_a_bad_answer_each(adapted_of, noisy, chat_tokenizer):
    """trl#2248: KTO on pairs; trl#1635: its authors prefer this to a loss over pairs"""
    pairs = [
        (line, PreferenceExample(CompletionExample(p, c), CompletionExample(p, r)))
        for line, (p, c, r) in enumerate([("a=", "b", "c"), ("d=", "e", "f")], start=1)
    ]
    objective, adapted = kto(chat_tokenizer), adapted_of()
    rows = objective.rows(pairs)
    assert [(row.line, row.is_good) for row in rows] == [
        *((1, True), (1, False), (2, True), (2, False))
    ]
    assert all(isinstance(row, RatedRow) and row.targets == 1 for row in rows)
    objective.prepare(adapted, rows, 4096)
    objective.begin_step(noisy(adapted), rows, 4096, lambda: False)
    assert objective.loss(adapted, rows).targets == 4
