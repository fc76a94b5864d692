"""Vectors of texts, compared with those of transformers and PEFT, one text at a time."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForSequenceClassification

from core.engine.precisions import ServedPrecisions
from core.engine.text.prompts import PromptReader
from core.engine.text.texts import TextsAnswer, TextsRead
from core.errors import InvalidRequest, Unavailable
from core.models.load import load_tokenizer
from core.spec.base_model import BaseModelSpec
from core.spec.classification import ClassificationRequest
from core.spec.embedding import EmbeddingRequest
from core.spec.objective import ClassificationSpec
from core.spec.strategy import FullSpec, LoraSpec, PrefixSpec, PromptSpec, StrategySpec
from tests.core.engine.bundles import Bundle, write_bundle
from tests.core.tiny import save_base

TEXTS = ("abcd", "A much longer text, of many more tokens than the others have.", "x y", "ab")
LABELS = ClassificationSpec(labels=("good", "bad", "ugly"))
TOLERANCE = {"atol": 1e-5, "rtol": 0.0}


def pooling_of(base: BaseModelSpec, **config: bool) -> BaseModelSpec:
    """Write the files of sentence-transformers into the folder of a base."""
    folder = Path(base.source)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    kinds = ["Transformer", "Pooling", "Normalize"]
    (folder / "modules.json").write_text(
        json.dumps(
            [{"type": f"m.{kind}", "path": "1_Pooling" * (kind == "Pooling")} for kind in kinds]
        )
    )
    return base


@pytest.fixture
def embed(make_engine, reader) -> Callable[..., Tensor]:
    """Return the vectors (B, D) of texts; all requests are in the engine at once."""
    engine = make_engine()

    def embed(base: BaseModelSpec, texts, *others: Bundle, **asked) -> Tensor:
        ready = reader.read_embedding(EmbeddingRequest(id="r", base=base, texts=texts, **asked))
        for bundle in others:
            scored = reader.read_texts(_classification(bundle))
            engine.submit(scored, TextsAnswer(scored), lambda item: None)
        items: list[TextsRead] = []
        engine.submit(ready, TextsAnswer(ready), items.append)
        while engine.step():
            pass
        assert not engine._tickets
        [read] = items
        vectors = [np.frombuffer(each, "<f4") for each in read.results]
        return torch.from_numpy(np.stack(vectors))

    return embed


def _classification(bundle: Bundle) -> ClassificationRequest:
    return ClassificationRequest(id="c", base=bundle.base, adapter=bundle.ref, texts=TEXTS)


@torch.inference_mode()
def states(model, tokenizer, text: str) -> Tensor:
    """Return the states (S, E) of a text alone."""
    return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]


def expected(base: BaseModelSpec, pooled: Callable[[Tensor], Tensor]) -> Tensor:
    model, tokenizer = AutoModel.from_pretrained(base.source).eval(), load_tokenizer(base)
    vectors = [pooled(states(model, tokenizer, text)) for text in TEXTS]
    return normalize(torch.stack(vectors), dim=-1)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_encoder_without_files_gives_normalized_means(family, tmp_path, embed):
    base = save_base(tmp_path / family, family)
    wanted = expected(base, lambda states_SE: states_SE.mean(dim=0))
    torch.testing.assert_close(embed(base, TEXTS), wanted, **TOLERANCE)


def test_pooling_is_that_of_the_base(tmp_path, embed):
    base = pooling_of(save_base(tmp_path / "bert", "bert"), pooling_mode_cls_token=True)
    wanted = expected(base, lambda states_SE: states_SE[0])
    torch.testing.assert_close(embed(base, TEXTS), wanted, **TOLERANCE)


def test_decoder_that_embeds_reads_the_last_token(tmp_path, embed):
    base = save_base(tmp_path / "qwen3", "qwen3", pad_token_id=0)
    pooling_of(base, pooling_mode_lasttoken=True)
    wanted = expected(base, lambda states_SE: states_SE[-1])
    torch.testing.assert_close(embed(base, TEXTS), wanted, **TOLERANCE)


def test_company_changes_no_vector(tmp_path, store, embed):
    """Long neighbors, a full batch, and a classifier on the same base."""
    base = save_base(tmp_path / "bert", "bert")
    bundle = write_bundle(
        tmp_path / "bundle", store, base, LoraSpec(rank=2), "classification", LABELS
    )
    alone = torch.cat([embed(base, (text,)) for text in TEXTS])
    together = embed(base, TEXTS * 10, bundle)
    torch.testing.assert_close(together, alone.repeat(10, 1), atol=1e-6, rtol=0)


def test_token_ids_are_used_unchanged(tmp_path, embed):
    base = save_base(tmp_path / "bert", "bert")
    ids = tuple(tuple(row) for row in load_tokenizer(base)(list(TEXTS))["input_ids"])
    torch.testing.assert_close(embed(base, ids), embed(base, TEXTS), atol=1e-6, rtol=0)
    bare = tuple(row[1:-1] for row in ids)
    assert (embed(base, bare) - embed(base, TEXTS)).abs().max() > 1e-3


def test_fewer_dimensions_are_the_first_ones_normalized_again(tmp_path, embed):
    base = save_base(tmp_path / "bert", "bert")
    short = embed(base, TEXTS, dimensions=5)
    torch.testing.assert_close(
        short, normalize(embed(base, TEXTS)[:, :5], dim=-1), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(embed(base, TEXTS, dimensions=32), embed(base, TEXTS))


@pytest.mark.parametrize(
    ("family", "strategy"),
    [
        ("bert", LoraSpec(rank=2)),
        ("bert", FullSpec()),
        ("bert", PromptSpec(virtual_tokens=3)),
        ("modernbert", LoraSpec(rank=2)),
    ],
    ids=["lora", "full", "prompt", "lora-modernbert"],
)
def test_tuned_classifier_embeds_with_its_body(
    family: str, strategy: StrategySpec, tmp_path, store, embed
):
    base = save_base(tmp_path / family, family)
    bundle = write_bundle(tmp_path / "bundle", store, base, strategy, "classification", LABELS)
    found = embed(base, TEXTS, bundle, adapter=bundle.ref)
    is_full = isinstance(strategy, FullSpec)
    source = bundle.folder if is_full else base.source
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=3)
    if not is_full:
        model = PeftModel.from_pretrained(model, bundle.folder)
    tokenizer, virtual = load_tokenizer(base), getattr(strategy, "virtual_tokens", 0)
    vectors = []
    for text in TEXTS:
        with torch.inference_mode():
            output = model.eval()(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        vectors.append(output.hidden_states[-1][0, virtual:].mean(dim=0))
    torch.testing.assert_close(found, normalize(torch.stack(vectors), dim=-1), **TOLERANCE)
    assert (found - embed(base, TEXTS)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("texts", "dimensions", "code", "param"),
    [
        (("fine", "word " * 60), None, "context_length_exceeded", "input"),
        (("w" * 20_000,), None, "context_length_exceeded", "input"),
        (((5, 6), ()), None, "empty_prompt", "input"),
        (((5, 320),), None, "invalid_token", "input"),
        (((5,) * 300,), None, "context_length_exceeded", "input"),
        (("fine",), 33, "invalid_value", "dimensions"),
    ],
)
def test_what_cannot_be_embedded_is_refused(texts, dimensions, code, param, tmp_path, reader):
    base = save_base(tmp_path / "bert", "bert")
    asked = EmbeddingRequest(id="r", base=base, texts=texts, dimensions=dimensions)
    with pytest.raises(InvalidRequest) as caught:
        reader.read_embedding(asked)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_ids_of_another_vocabulary_are_refused_with_the_way_out(tmp_path, reader):
    """The default of LangChain: ids of OpenAI's vocabulary, which this model does not have."""
    base = save_base(tmp_path / "bert", "bert")
    asked = EmbeddingRequest(id="r", base=base, texts=((9906, 1917),))
    with pytest.raises(InvalidRequest, match=r"0 to 319.*check_embedding_ctx_length=False"):
        reader.read_embedding(asked)


@pytest.mark.parametrize(("asked", "expected"), [("auto", "fp32"), ("bf16", "bf16")])
def test_encoder_runs_in_fp32_unless_one_format_is_set(asked, expected, tmp_path, files):
    """No chooser is asked, which would take 16 bits on some devices."""

    class NoChooser:
        device = torch.device("cpu")

    precisions = ServedPrecisions(asked, NoChooser())
    reader = PromptReader(files, lambda base: None, precisions=precisions)
    base = save_base(tmp_path / "bert", "bert")
    ready = reader.read_embedding(EmbeddingRequest(id="r", base=base, texts=("a",)))
    assert (ready.model.precision, ready.model.task) == (expected, "classification")


def test_limit_of_a_text_is_that_of_the_base(tmp_path, reader):
    base = save_base(tmp_path / "bert", "bert")
    pooling_of(base, pooling_mode_mean_tokens=True)
    (tmp_path / "bert" / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    asked = EmbeddingRequest(id="r", base=base, texts=("xyzxyz",))
    assert len(reader.read_embedding(asked).texts[0]) == 8
    with pytest.raises(InvalidRequest, match="up to 8 tokens; text 0 of the input has 9"):
        reader.read_embedding(asked.model_copy(update={"texts": ("xyzxyzx",)}))


def test_generators_are_refused_with_what_to_use(base, adapters, reader, tmp_path, store):
    asked = EmbeddingRequest(id="r", base=base, texts=("a",))
    embedder = save_base(tmp_path / "qwen3", "qwen3", pad_token_id=0)
    pooling_of(embedder, pooling_mode_lasttoken=True)
    tuned = write_bundle(tmp_path / "bundle", store, embedder, LoraSpec(rank=2))
    for model, hint in [
        ({}, "Use an encoder"),
        ({"adapter": adapters[0]}, "Use an encoder"),
        ({"base": embedder, "adapter": tuned.ref}, "Use its base"),
        ({"base": save_base(tmp_path / "t5", "t5")}, "Use an encoder"),
    ]:
        with pytest.raises(InvalidRequest, match=hint) as caught:
            reader.read_embedding(asked.model_copy(update=model))
        assert (caught.value.code, caught.value.param) == ("not_an_embedder", "model")


def test_prefix_of_a_tuned_encoder_counts_against_its_context(tmp_path, store, reader):
    base = save_base(tmp_path / "bert", "bert")
    strategy = PrefixSpec(virtual_tokens=3)
    bundle = write_bundle(tmp_path / "bundle", store, base, strategy, "classification", LABELS)
    asked = EmbeddingRequest(id="r", base=base, adapter=bundle.ref, texts=((5,) * 254,))
    with pytest.raises(InvalidRequest, match="up to 253 tokens"):
        reader.read_embedding(asked)


def test_vector_that_is_not_finite_fails_its_request_only(tmp_path, make_engine, reader):
    base = save_base(tmp_path / "bert", "bert")
    engine, items = make_engine(), []
    for texts in (("broken",), ("whole", "too")):
        ready = reader.read_embedding(EmbeddingRequest(id="r", base=base, texts=texts))
        engine.submit(ready, TextsAnswer(ready), items.append)
    run = engine.runner.run

    def with_a_hole(step):
        done = run(step)
        broken = torch.full((32,), torch.nan).numpy().tobytes()
        done.results[:] = [
            broken if len(sequence.request.texts) == 1 else result
            for sequence, result in zip(done.sequences, done.results, strict=True)
        ]
        return done

    engine.runner.run = with_a_hole
    while engine.step():
        pass
    failed, read = sorted(items, key=lambda item: isinstance(item, TextsRead))
    assert isinstance(failed, Unavailable) and "not finite" in failed.message
    assert len(read.results) == 2
