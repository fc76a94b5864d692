"""Public bug reports on GGUF files of tuned models, tried; docs/lab-notes.md lists them."""

import json
from statistics import fmean

import peft
import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from core.errors import InvalidRequest
from core.exports.gguf.llama_cpp import ConversionFailed
from core.exports.gguf.read import Row, ends_among, score, tokens_of
from core.exports.gguf.write import write_adapter, write_model
from core.exports.older_programs import add_older_names
from tests.core.exports.gguf.models import TINY, log_probabilities, save_model
from tests.core.exports.gguf.test_families import DISTANCE, ROW, adapted, distance
from tests.core.tiny import chat_tokenizer

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|done|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def written(llama_cpp, tmp_path):
    """Return a function that writes a model and returns its file and notes."""

    def write(tokenizer=None, family="llama", **changes):
        folder, file = tmp_path / "model", tmp_path / "model.gguf"
        save_model(folder, family, **changes)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        return file, write_model(llama_cpp, folder, folder, file)

    return write


def chat(**tokens):
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    marks = ("<|user|>", "<|assistant|>", "<|done|>", "<s>")
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>", "bos_token": "<s>", **tokens})
    tokenizer.chat_template = CHAT
    return tokenizer


def test_answers_end_where_the_template_ends_them(written, llama_cpp):
    """The file had only the tokenizer's end, and the model never stopped."""
    tokenizer = chat()
    file, notes = written(tokenizer, vocab_size=4160)
    ends = tokenizer.convert_tokens_to_ids(["<|done|>", "<|endoftext|>", "<|user|>"])
    assert ends_among(llama_cpp, file, ends) == set(ends[:2])
    assert notes == ()


@pytest.mark.parametrize("writes_it", [True, False])
def test_a_prompt_has_the_first_token_of_its_template_once(writes_it, written, llama_cpp):
    """llama.cpp added a first token to the one of the template, or one that it never has."""
    tokenizer = chat()
    if not writes_it:
        tokenizer.chat_template = CHAT.removeprefix("{{ bos_token }}")
    file, notes = written(tokenizer, vocab_size=4160)
    (found,) = tokens_of(llama_cpp, file, ["<|user|>Hello"])
    first = [tokenizer.bos_token_id] if writes_it else []
    assert found == [*first, *tokenizer("<|user|>Hello", add_special_tokens=False)["input_ids"]]
    assert notes == ()


def test_an_unpublished_tokenizer_is_known_by_its_rules(written):
    """The converter knows tokenizers by a hash: the tiny base's was refused."""
    assert written()[1] == ()


def test_rules_without_a_name_are_refused(written):
    with pytest.raises(ConversionFailed, match="no pre-tokenizer with the rules"):
        written(chat_tokenizer())


def test_a_tokenizer_of_pieces_needs_the_file_with_their_scores(llama_cpp, tmp_path):
    """Without it the converter failed, or gave all pieces one score, so that texts were cut up."""
    save_model(tmp_path / "base", "gemma2")
    model = tmp_path / "merged"
    model.mkdir()
    for path in (tmp_path / "base").iterdir():
        if path.name != "tokenizer.model":
            (model / path.name).write_bytes(path.read_bytes())
    assert write_model(llama_cpp, model, tmp_path / "base", tmp_path / "a.gguf") == ()
    with pytest.raises(InvalidRequest, match=r"no tokenizer\.model"):
        write_model(llama_cpp, model, model, tmp_path / "b.gguf")
    assert not (tmp_path / "b.gguf").exists()


def test_an_adapter_of_a_base_with_scaled_positions_loads(llama_cpp, tmp_path):
    """The converter put the frequencies of Llama 3.1 into the adapter, which did not load."""
    rope = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 32}
    model = save_model(tmp_path / "base", "llama", rope_parameters=rope)
    write_model(llama_cpp, tmp_path / "base", tmp_path / "base", tmp_path / "base.gguf")
    tuned = adapted(model, tmp_path / "adapter")
    write_adapter(llama_cpp, tmp_path / "adapter", tmp_path / "base", tmp_path / "a.gguf")
    (found,) = score(llama_cpp, tmp_path / "base.gguf", [ROW], tmp_path / "a.gguf")
    assert distance(found.logprobs, log_probabilities(tuned, ROW.tokens)) < 2 * DISTANCE["f16"]


def test_an_adapter_works_on_a_quantized_base(llama_cpp, tmp_path):
    """It was loaded, and the answers stayed those of the base."""
    base = tmp_path / "base"
    model = save_model(base, "llama")
    exact = log_probabilities(model, ROW.tokens)
    write_model(llama_cpp, base, base, tmp_path / "base.gguf", "q8_0")
    tuned = adapted(model, tmp_path / "adapter")
    write_adapter(llama_cpp, tmp_path / "adapter", base, tmp_path / "a.gguf")
    wanted = changes(exact, log_probabilities(tuned, ROW.tokens))
    plain = score(llama_cpp, tmp_path / "base.gguf", [ROW])[0].logprobs
    found = score(llama_cpp, tmp_path / "base.gguf", [ROW], tmp_path / "a.gguf")[0].logprobs
    assert distance(changes(plain, found), wanted) < 0.5 * fmean(map(abs, wanted))


def changes(before, after):
    return [b - a for a, b in zip(before, after, strict=True)]


def test_an_adapter_with_a_trained_head_is_refused_before_it_is_converted(llama_cpp, tmp_path):
    """The converter stopped at `lm_head` with a message about embeddings."""
    model = save_model(tmp_path / "base", "llama")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(InvalidRequest, match="whole modules"):
        write_adapter(llama_cpp, tmp_path / "adapter", tmp_path / "base", tmp_path / "a.gguf")


def test_an_adapter_of_the_wrong_base_is_refused(llama_cpp, tmp_path):
    """It was taken, and answered nonsense."""
    for name, layers in (("base", 2), ("other", 3)):
        save_model(
            tmp_path / name, "llama", num_hidden_layers=layers, intermediate_size=256 * layers
        )
    write_model(llama_cpp, tmp_path / "other", tmp_path / "other", tmp_path / "other.gguf")
    adapted(save_model(tmp_path / "base", "llama"), tmp_path / "adapter")
    write_adapter(llama_cpp, tmp_path / "adapter", tmp_path / "base", tmp_path / "a.gguf")
    with pytest.raises(ConversionFailed, match="cannot load the adapter"):
        score(llama_cpp, tmp_path / "other.gguf", [ROW], tmp_path / "a.gguf")


def test_a_head_that_is_no_longer_tied_is_written(llama_cpp, tmp_path):
    """A trained head of a tied model was lost: llama.cpp used the embedding."""
    folder = tmp_path / "model"
    model = save_model(folder, "qwen2", tie_word_embeddings=False)
    write_model(llama_cpp, folder, folder, tmp_path / "model.gguf")
    (found,) = score(llama_cpp, tmp_path / "model.gguf", [ROW])
    assert distance(found.logprobs, log_probabilities(model, ROW.tokens)) < DISTANCE["f16"]


def test_more_tokens_than_the_model_has_are_an_error(written):
    """Tokens beyond the embedding were ignored, or made the file unloadable."""
    with pytest.raises(ConversionFailed, match="converter ended with status 1"):
        written(chat(), vocab_size=4096)


@pytest.mark.parametrize(("word", "is_whole"), [("Zqxkwh", True), ("kW·h", False)])
def test_words_added_to_the_vocabulary_are_whole_or_noted(word, is_whole, written, llama_cpp):
    """They were cut up after the conversion; those with letters beyond ASCII still are."""
    tokenizer = chat()
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False)])
    file, notes = written(tokenizer, vocab_size=4160)
    text = f"<|user|>Three {word} more"
    (found,) = tokens_of(llama_cpp, file, [text])
    wanted = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_tokens_to_ids(word) in wanted
    assert (found == [tokenizer.bos_token_id, *wanted]) == is_whole
    assert bool(notes) == (not is_whole), notes


@pytest.mark.parametrize("theta", [1e6, 3e3])
def test_the_frequency_of_positions_is_that_of_the_model(theta, llama_cpp, tmp_path):
    """Programs that do not find it take 10,000, and say nothing."""
    rope = {"rope_type": "default", "rope_theta": theta}
    model = save_model(tmp_path / "model", "llama", rope_parameters=rope)
    add_older_names(tmp_path / "model")
    write_model(llama_cpp, tmp_path / "model", tmp_path / "model", tmp_path / "model.gguf")
    (found,) = score(llama_cpp, tmp_path / "model.gguf", [ROW])
    assert distance(found.logprobs, log_probabilities(model, ROW.tokens)) < DISTANCE["f16"]


def test_a_long_row_is_read_in_steps(written, llama_cpp):
    file, _ = written(max_position_embeddings=1024)
    tokens = tuple(range(3, 703))
    (one,) = score(llama_cpp, file, [Row(tokens, tuple(range(1, 700)))])
    assert len(one.logprobs) == len(one.preferred) == 699


def test_the_chat_template_is_in_the_file(written, tmp_path):
    import gguf

    tokenizer = chat()
    file, _ = written(tokenizer, vocab_size=4160)
    field = gguf.GGUFReader(file).fields["tokenizer.chat_template"]
    assert bytes(field.parts[field.data[0]]).decode() == CHAT
    assert json.loads((tmp_path / "model/config.json").read_text())["vocab_size"] == 4160
