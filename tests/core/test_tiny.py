"""The tiny bases that the other tests stand on are what they claim to be."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.core import tiny


@pytest.mark.parametrize("model_type", [*tiny.DECODERS, *tiny.ENCODERS, *tiny.ENCODER_DECODERS])
def test_saved_base_loads_with_its_tokenizer(base_of, model_type):
    base = base_of(model_type)
    tokenizer = AutoTokenizer.from_pretrained(base.source)
    again = type(tiny.tiny_model(model_type)).from_pretrained(base.source).eval()
    for name, value in tiny.tiny_model(model_type).state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert len(tokenizer) <= again.config.vocab_size
    for name in ("pad", "eos", "bos", "cls", "sep", "decoder_start"):
        of_model = getattr(again.config, f"{name}_token_id", None)
        if model_type not in tiny.DECODERS and of_model is not None:
            assert of_model in tokenizer.all_special_ids, name
    encoded = tokenizer("abcd é☃", return_offsets_mapping=True)
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == "abcd é☃"
    ids = encoded["input_ids"]
    match model_type:
        case "t5":
            assert ids[-1] == again.config.eos_token_id == 1
        case "bart":
            assert (ids[0], ids[-1]) == (0, 2)
        case "bert" | "modernbert":
            assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["[CLS]", "[SEP]"]
        case _:
            assert tokenizer.chat_template and ids[0] == tokenizer.convert_tokens_to_ids("abcd")


@pytest.mark.parametrize("model_type", [*tiny.DECODERS, *tiny.ENCODERS])
def test_classifier_is_built_with_its_labels(model_type):
    model = tiny.tiny_model(model_type, labels=3)
    auto = AutoModelForSequenceClassification._model_mapping[type(model.config)]
    assert isinstance(model, auto)
    assert model(torch.tensor([[5, 6, 7]])).logits.shape == (1, 3)
