"""Prompt tuning: the initial virtual tokens and their names in PEFT."""

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
    """Add soft tokens before every text; they and the head of a classifier are trained."""
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
        # Without `init_text`: to load the adapter for further training, PEFT would need the name
        # of a tokenizer. The manifest has the text.
        peft.PromptTuningConfig(
            task_type=peft_task(model),
            num_virtual_tokens=spec.virtual_tokens,
            token_dim=weight.shape[1],
            num_transformer_submodules=1,  # PEFT's default gives T5's decoder unused tokens
            num_attention_heads=1,  # unused, but required
            num_layers=model.config.num_hidden_layers,
            modules_to_save=list(head) or None,
        ),
        replaced=copies,
        virtual=prompt,
    )
    adapted.install()
    return adapted


def _random_embeddings(tokens: int, weight_VE: Tensor) -> Tensor:
    """Return normal draws (P, E), the same as PEFT's."""
    drawn_on = "meta" if weight_VE.is_meta else "cpu"
    return nn.Embedding(tokens, weight_VE.shape[1], device=drawn_on).weight.detach()


def _embeddings_of(
    text: str, tokens: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Tensor:
    """Return the embeddings of a text's tokens, repeated or truncated to the right number.

    Raises InvalidRequest for a text without tokens.
    """
    ids = tokenizer(text)["input_ids"]
    if not ids:
        raise InvalidRequest(
            "The base model's tokenizer returns no tokens for init_text. Use another text.",
            param="strategy.init_text",
            code="invalid_value",
        )
    repeated_P = torch.tensor((ids * -(-tokens // len(ids)))[:tokens], device=model.device)
    with torch.no_grad():
        return model.get_input_embeddings()(repeated_P)
