"""Prompt tuning: what the virtual tokens are at first, and how PEFT calls them."""

import peft
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.adapters.adapted import AdaptedModel
from core.adapters.modules_to_save import classifier_head, trainable_copies
from core.adapters.targets import peft_task
from core.adapters.virtual import SoftPrompt, head_weights
from core.errors import InvalidRequest
from core.spec.strategy import PromptSpec


def attach_prompt(
    model: PreTrainedModel, spec: PromptSpec, tokenizer: PreTrainedTokenizerBase
) -> AdaptedModel:
    """Put soft tokens before every text; they and the head of a classifier are trained."""
    model.requires_grad_(False)
    weight = model.get_input_embeddings().weight
    if spec.init_text is None:
        embeddings_PE = _random_embeddings(spec.virtual_tokens, weight)
    else:
        embeddings_PE = _embeddings_of(spec.init_text, spec.virtual_tokens, model, tokenizer)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    prompt = SoftPrompt(embeddings_PE.to(weight.device, dtype))
    head = classifier_head(model)
    copies = trainable_copies(model, head)
    adapted = AdaptedModel(
        model,
        {"prompt_embeddings": prompt.embeddings_PE, **head_weights(copies)},
        # No trace of `init_text`: to load it for more training, PEFT would need the name of a
        # tokenizer. The manifest says how it all began.
        peft.PromptTuningConfig(
            task_type=peft_task(model),
            num_virtual_tokens=spec.virtual_tokens,
            token_dim=weight.shape[1],
            num_transformer_submodules=1,  # by default PEFT gives decoders of T5 some, unused
            num_attention_heads=1,  # unused, but must be there
            num_layers=model.config.num_hidden_layers,
            modules_to_save=list(head) or None,
        ),
        replaced=copies,
        virtual=prompt,
    )
    adapted.install()
    return adapted


def _random_embeddings(tokens: int, weight_VE: Tensor) -> Tensor:
    """Return (P, E) of normal draws, the same ones that PEFT takes."""
    drawn_on = "meta" if weight_VE.is_meta else "cpu"
    return nn.Embedding(tokens, weight_VE.shape[1], device=drawn_on).weight.detach()


def _embeddings_of(
    text: str, tokens: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Tensor:
    """Return the embeddings of a text's tokens, repeated and cut to the right number.

    Raises InvalidRequest for a text without tokens.
    """
    ids = tokenizer(text)["input_ids"]
    if not ids:
        raise InvalidRequest(
            "The tokenizer of the base model leaves nothing of init_text. Give it another text.",
            param="strategy.init_text",
            code="invalid_value",
        )
    repeated_P = torch.tensor((ids * -(-tokens // len(ids)))[:tokens], device=model.device)
    with torch.no_grad():
        return model.get_input_embeddings()(repeated_P)
