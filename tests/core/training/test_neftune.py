import pytest
import torch
from transformers.integrations.neftune import neftune_post_forward_hook

from core.adapters.adapted import AdaptedModel
from core.batching.packing import lay_out
from core.batching.padding import pad
from core.batching.rows import SourceTargetRow
from core.models import kernel_lengths
from core.models.attention import use_packed_attention
from core.spec.strategy import PromptSpec
from core.strategies.attach import attach
from core.training.neftune import add_noise

CPU = torch.device("cpu")


def packed(model):
    use_packed_attention(model)
    return AdaptedModel(model, {}, None)


def seen_embeddings(adapted, sequences):
    """Return what enters the first layer of the backbone, (T, E)."""
    seen = []
    first = adapted.model.base_model.layers[0]
    handle = first.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][0]))
    torch.manual_seed(3)
    with torch.no_grad():
        adapted.hidden_states(lay_out(sequences, CPU))
    handle.remove()
    return seen[0]


def test_one_text_alone_gets_the_noise_of_transformers(tiny_model):
    tokens = tuple(range(20))
    reference = tiny_model("llama").train()
    embeddings = reference.get_input_embeddings()
    embeddings.neftune_noise_alpha = 5.0
    embeddings.register_forward_hook(neftune_post_forward_hook)
    torch.manual_seed(3)
    expected_TE = embeddings(torch.tensor([tokens]))[0]
    adapted = packed(tiny_model("llama").train())
    add_noise(adapted, 5.0)
    assert torch.equal(seen_embeddings(adapted, [tokens]), expected_TE)


def test_noise_of_a_text_depends_on_its_own_length_alone(tiny_model):
    model = tiny_model("llama").train()
    adapted = packed(model)
    sequences = [tuple(range(100)), tuple(range(4))]
    plain_TE = seen_embeddings(adapted, sequences)
    add_noise(adapted, 5.0)
    noise_TE = (seen_embeddings(adapted, sequences) - plain_TE).abs()
    width = plain_TE.shape[1]
    for part_SE, length in ((noise_TE[:100], 100), (noise_TE[100:], 4)):
        bound = 5.0 / (length * width) ** 0.5
        assert 0.95 * bound < part_SE.max() <= bound * 1.0001


def test_there_is_no_noise_in_evaluation(tiny_model):
    adapted = packed(tiny_model("llama").eval())
    before_TE = seen_embeddings(adapted, [(1, 2, 3)])
    add_noise(adapted, 5.0)
    assert torch.equal(seen_embeddings(adapted, [(1, 2, 3)]), before_TE)


def test_soft_tokens_are_left_alone(tiny_model, chat_tokenizer):
    model = tiny_model("llama")
    use_packed_attention(model)
    adapted = attach(model, PromptSpec(virtual_tokens=3), chat_tokenizer)
    model.train()
    sequences = [(1, 2, 3, 4), (5, 6)]
    plain_TE = seen_embeddings(adapted, sequences)
    add_noise(adapted, 5.0)
    disturbed_T = (seen_embeddings(adapted, sequences) != plain_TE).any(dim=1)
    assert disturbed_T.tolist() == [False] * 3 + [True] * 4 + [False] * 3 + [True] * 2


def test_padding_shorter_than_the_soft_prompt_is_no_text(tiny_model, chat_tokenizer):
    model = tiny_model("llama")
    use_packed_attention(model)
    adapted = attach(model, PromptSpec(virtual_tokens=3), chat_tokenizer)
    model.train()
    add_noise(adapted, 5.0)
    sequences = [tuple(range(1, 25)), tuple(range(1, 21))]
    assert kernel_lengths.batch_padding(24 + 20 + 2 * 3, CPU) == 2
    seen_embeddings(adapted, sequences)


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_source_of_an_encoder_decoder_is_disturbed_by_row(tiny_model, model_type):
    model = tiny_model(model_type).train()
    adapted = AdaptedModel(model, {}, None)
    rows = [SourceTargetRow(1, tuple(range(5, 45)), (7, 8)), SourceTargetRow(2, (5, 6), (9,))]
    batch = pad(rows, 0, 0, CPU)
    seen = []
    add_noise(adapted, 5.0)
    model.get_encoder().register_forward_pre_hook(
        lambda _, arguments, named: seen.append(named["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        adapted.decoder_states(batch)
        plain_BSE = model.get_encoder().get_input_embeddings()(batch.source_tokens_BS)
    noise_BSE = (seen[0] - plain_BSE).abs()
    assert noise_BSE[1, 2:].max() == 0
    width = plain_BSE.shape[2]
    for row_SE, length in ((noise_BSE[0], 40), (noise_BSE[1, :2], 2)):
        bound = 5.0 / (length * width) ** 0.5
        assert 0.9 * bound < row_SE.max() <= bound * 1.0001
