"""Make the tiny base model anew: `python -m core.models.tiny_build --output <folder>`.

Trains the tokenizer and the model on the library of the running Python. That text differs between
patch releases, so a new tokenizer would not fit the committed weights: the output is a folder of
its own, and `core/models/tiny/corpus.txt` says what the committed model has read.
"""

import argparse
import hashlib
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from transformers import GenerationConfig

from core.models.tiny_build.conversations import conversations
from core.models.tiny_build.corpus import measured_texts, plain_documents
from core.models.tiny_build.pretraining import Schedule, pretrain
from core.models.tiny_build.shape import model_config
from core.models.tiny_build.tokenizer import DOCUMENT_END, train_tokenizer

TINY = Path(__file__).parents[1] / "tiny"
DATASET = Path(__file__).parents[3] / "examples" / "python_docs"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--steps", type=int, default=1422, help="6,144 tokens each")
    chosen = arguments.parse_args()
    folder: Path = chosen.output
    folder.mkdir(parents=True, exist_ok=True)

    documents = plain_documents(measured_texts(DATASET))
    (folder / "corpus.txt").write_text(corpus_list(documents), encoding="utf-8")

    shutil.copy(TINY / "chat_template.jinja", folder)
    chat_template = (TINY / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = train_tokenizer((documents[name] for name in sorted(documents)), chat_template)
    tokenizer.save_pretrained(folder)

    texts = [
        *documents.values(),
        *(
            tokenizer.apply_chat_template(conversation, tokenize=False)
            for conversation in conversations(documents, seed=0)
        ),
    ]
    ids = [tokenizer.encode(text + DOCUMENT_END, verbose=False) for text in texts]
    config = model_config(tokenizer.pad_token_id, tokenizer.eos_token_id)
    pretrain(config, ids, Schedule(steps=chosen.steps), folder)
    GenerationConfig.from_model_config(config).save_pretrained(folder)


def corpus_list(documents: Mapping[str, str]) -> str:
    """The names of the documents, each after the SHA-256 of what was read of it."""
    head = f"# Python {platform.python_version()}: SHA-256 of the text read, document\n"
    return head + "".join(
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in documents.items()
    )


if __name__ == "__main__":
    main()
