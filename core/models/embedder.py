"""How a base makes a vector of a text, as sentence-transformers' files in its folder say.

`modules.json` lists the modules: the transformer, the pooling with its own `config.json`, and
perhaps the normalization. `sentence_bert_config.json` has the limit of a text.
"""

# S tokens of one text, B texts, E hidden size, D dimensions of a vector

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from pydantic import BaseModel, TypeAdapter, ValidationError
from torch import Tensor
from torch.nn.functional import normalize

from core.catalog.families import family_of, hidden_size
from core.errors import InvalidRequest
from core.models.load import load_config, read_json
from core.spec.base_model import BaseModelSpec
from core.spec.embedding import PoolingMode, PoolingSpec
from core.spec.members import for_each


@dataclass(frozen=True)
class Embedder:
    """The facts of a base that embeds texts."""

    dimensions: int
    """Of a vector: the hidden size."""
    mode: PoolingMode = "mean"
    is_normalized: bool = True
    max_tokens: int | None = None
    """Of a text, special tokens included; None: those of the context."""
    lowers_case: bool = False
    """Whether a text is put into lower case before it is tokenized."""


class _Module(BaseModel):
    type: str
    path: str


class _Limits(BaseModel):
    max_seq_length: int | None = None
    do_lower_case: bool = False


Content = TypeVar("Content")

_DEFAULT_MODULES = {"Pooling": "1_Pooling", "Normalize": "2_Normalize"}
"""The folder of each module of an encoder without `modules.json`."""

_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The older fields of a pooling's config, one for each mode; the newer one is `pooling_mode`."""

_POOL: dict[str, Callable[[Tensor], Tensor]] = for_each(
    PoolingMode,
    {
        "mean": lambda states_SE: states_SE.mean(dim=0),
        "cls": lambda states_SE: states_SE[0],
        "max": lambda states_SE: states_SE.amax(dim=0),
        "lasttoken": lambda states_SE: states_SE[-1],
    },
)


def pool(texts: Sequence[Tensor], how: PoolingSpec) -> Tensor:
    """Return the fp32 vectors (B, D) of texts by their states, (S, E) each."""
    vectors_BD = torch.stack([_POOL[how.mode](states_SE.float()) for states_SE in texts])
    vectors_BD = vectors_BD[:, : how.dimensions]
    return normalize(vectors_BD, dim=-1) if how.is_normalized else vectors_BD


def read_embedder(base: BaseModelSpec) -> Embedder | None:
    """Return how a base embeds texts; None for a base that is not made for it.

    Without `modules.json`, an encoder is: with normalized means, unless `1_Pooling` has another
    mode. Raises the errors of `load_config`, and InvalidRequest `unsupported_model` for modules
    that are not served.
    """
    config = load_config(base).to_dict()
    kind, width = family_of(config["model_type"]).kind, hidden_size(config)
    assert width is not None, "the configs of all families have the field of their width"
    modules = _read(base, "modules.json", list[_Module])
    if kind == "encoder-decoder" or (modules is None and kind == "decoder"):
        return None
    paths = _DEFAULT_MODULES if modules is None else _paths(base, modules)
    folder = paths.get("Pooling", _DEFAULT_MODULES["Pooling"])
    limits = _read(base, "sentence_bert_config.json", _Limits) or _Limits()
    return Embedder(
        width,
        _mode(base, _read(base, "config.json", dict[str, Any], folder) or {}),
        is_normalized="Normalize" in paths,
        max_tokens=limits.max_seq_length,
        lowers_case=limits.do_lower_case,
    )


def _read(base: BaseModelSpec, name: str, kind: type[Content], folder: str = "") -> Content | None:
    """Return the content of a file; None if there is none, InvalidRequest for another form."""
    content = read_json(base, name, folder)
    try:
        return None if content is None else TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise _unsupported(base, f"its {folder or 'folder'} has an unusable {name}") from error


def _paths(base: BaseModelSpec, modules: Sequence[_Module]) -> dict[str, str]:
    """Return the folder of each module by the name of its class."""
    paths = {module.type.rpartition(".")[2]: module.path for module in modules}
    for name in paths:
        if name not in ("Transformer", *_DEFAULT_MODULES):
            raise _unsupported(base, f"its modules.json has the module {name}")
    return paths


def _mode(base: BaseModelSpec, config: Mapping[str, Any]) -> PoolingMode:
    """Return the mode of a pooling's config: that of `pooling_mode`, or of the only flag set."""
    flags = [_FLAGS.get(name, name) for name, value in config.items() if value is True]
    modes = [mode for mode in flags if mode in _POOL or mode.startswith("pooling_mode_")]
    modes = modes or [str(config.get("pooling_mode", "mean"))]
    if len(modes) != 1 or modes[0] not in _POOL:
        raise _unsupported(
            base, f"its pooling is {', '.join(modes)}, not one of {', '.join(_POOL)}"
        )
    return cast(PoolingMode, modes[0])


def _unsupported(base: BaseModelSpec, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The base model {base.id} cannot embed texts here: {why}. Use another base.",
        param="model",
        code="unsupported_model",
    )
