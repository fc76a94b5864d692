"""Reads an untrusted `adapter_config.json`: every field is known and checked, or refused.

What PEFT is given later are these fields and no others, so nothing in the file names code, paths
or repositories. Fields that only say how training began are left out.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from core.adapter_files.limits import MAX_CONFIG_BYTES
from core.adapter_files.refusal import RefusedAdapter, shown
from core.datasets.strict_json import BadJson, decode
from core.spec.adapter_file import AdapterConfig, Method, PeftTask
from core.spec.nearest import did_you_mean
from core.spec.pattern import require_simple

Rule = Callable[[Any], bool]

MAX_RANK = 1024
MAX_VIRTUAL_TOKENS = 1024
MAX_NAMES = 1024
MAX_PATTERNS = 256

REFUSED_BY_NAME = {
    "auto_map": "names code to run",
    "auto_mapping": "names a class of another library",
    "layer_replication": "repeats layers of the base",
    "target_parameters": "adapts parameters of expert layers",
    "alora_invocation_tokens": "is an activated LoRA, which starts in the middle of a text",
    "use_qalora": "is QA-LoRA, which changes the shapes of its matrices",
    "lora_bias": "has a bias in its B matrices",
    "ensure_weight_tying": "ties modules that are trained apart here",
}
"""Fields with a value that cannot be expressed, and what an adapter with such a value is."""

_CHANGED_BASES = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Values of `init_lora_weights` with which training began by changing the base."""


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable()


def _is_count(most: int) -> Rule:
    return lambda value: type(value) is int and 1 <= value <= most


def _is_number(least: float, most: float) -> Rule:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_NAMES and all(map(_is_name, value))


def _are_patterns(is_value: Rule) -> Rule:
    return lambda value: (
        isinstance(value, dict)
        and len(value) <= MAX_PATTERNS
        and all(_is_name(key) and is_value(each) for key, each in value.items())
    )


def _are_indices(value: Any) -> bool:
    lists = value.values() if isinstance(value, dict) else [value]
    return all(
        isinstance(each, list)
        and len(each) <= 65_536
        and all(type(index) is int and 0 <= index < 2**31 for index in each)
        for each in lists
    )


def _or_none(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def _is_pattern_or_names(value: Any) -> bool:
    return _are_names(value) or (isinstance(value, str) and 0 < len(value) <= 4096)


def _is_anything(value: Any) -> bool:
    return True


_ALPHA = _is_number(1e-6, 65_536)

_COMMON: dict[str, Rule] = {"modules_to_save": _or_none(_are_names)}
_VIRTUAL: dict[str, Rule] = {
    **_COMMON,
    "num_virtual_tokens": _is_count(MAX_VIRTUAL_TOKENS),
    "token_dim": _is_count(2**20),
    "num_transformer_submodules": _is_count(2),
    "num_attention_heads": _is_count(2**16),
    "num_layers": _is_count(2**12),
}
_FIELDS: dict[Method, dict[str, Rule]] = {
    "LORA": {
        **_COMMON,
        "r": _is_count(MAX_RANK),
        "lora_alpha": _ALPHA,
        "lora_dropout": lambda value: _is_number(0, 1)(value) and value < 1,
        "target_modules": _or_none(_is_pattern_or_names),
        "fan_in_fan_out": _is_flag,
        "bias": lambda value: value in ("none", "all", "lora_only"),
        "use_rslora": _is_flag,
        "use_dora": _is_flag,
        "rank_pattern": _are_patterns(_is_count(MAX_RANK)),
        "alpha_pattern": _are_patterns(_ALPHA),
        "trainable_token_indices": _or_none(_are_indices),
    },
    "IA3": {
        **_COMMON,
        "target_modules": _or_none(_is_pattern_or_names),
        "feedforward_modules": _or_none(_is_pattern_or_names),
        "fan_in_fan_out": _is_flag,
    },
    "PREFIX_TUNING": {
        **_VIRTUAL,
        "encoder_hidden_size": _or_none(_is_count(2**20)),
        "prefix_projection": _is_flag,
    },
    "PROMPT_TUNING": _VIRTUAL,
    "P_TUNING": _VIRTUAL,
}
"""The fields that change what an adapter computes, with the values that are accepted."""

_HINTS = {
    "lora_alpha": ": with 0 the adapter would do nothing. Write the alpha of its training",
    "r": ". Write the rank of its training",
}

_WITHOUT_EFFECT: dict[str, Rule] = {
    "peft_type": _is_anything,  # read before
    "task_type": _is_anything,
    "base_model_name_or_path": _is_anything,
    "inference_mode": _is_flag,
    "revision": _or_none(_is_name),
    "peft_version": _or_none(_is_name),
    "exclude_modules": _or_none(_is_pattern_or_names),  # the tensors tell what was adapted
    "layers_to_transform": _or_none(lambda v: type(v) is int or isinstance(v, list)),
    "layers_pattern": _or_none(_is_pattern_or_names),
    "init_lora_weights": _is_anything,  # checked below
    "init_ia3_weights": _is_flag,
    "init_weights": _is_anything,
    "megatron_core": _or_none(_is_name),
    "qalora_group_size": _or_none(_is_count(2**16)),
    "eva_config": _or_none(lambda v: isinstance(v, dict)),
    "runtime_config": _or_none(lambda v: isinstance(v, dict)),
    "prompt_tuning_init": _or_none(_is_name),
    "prompt_tuning_init_text": _or_none(lambda v: isinstance(v, str)),
    "tokenizer_name_or_path": _or_none(lambda v: isinstance(v, str)),
    "tokenizer_kwargs": _or_none(lambda v: isinstance(v, dict)),
    "encoder_reparameterization_type": _or_none(_is_name),
    "encoder_hidden_size": _or_none(_is_count(2**20)),
    "encoder_num_layers": _or_none(_is_count(2**12)),
    "encoder_dropout": _or_none(_is_number(0, 1)),
}
"""Fields of how training began, and of the library: checked, and then left out."""


def read_config(content: bytes) -> AdapterConfig:
    """Return the checked fields; RefusedAdapter, with the field, for anything else."""
    given = _decoded(content)
    method, task = _method(given), _task(given)
    _refuse_changed_base(given.get("init_lora_weights"))
    fields = {}
    for name, value in given.items():
        if name in _FIELDS[method]:
            if not _FIELDS[method][name](value):
                hint = _HINTS.get(name, "")
                raise _refused(
                    name, f"has the value {shown(repr(value))}, which is not possible{hint}"
                )
            fields[name] = value
        elif name in _WITHOUT_EFFECT:
            if not _WITHOUT_EFFECT[name](value):
                raise _refused(name, f"has the value {shown(repr(value))}, which is not possible")
        elif value not in (None, False, {}, []):
            why = REFUSED_BY_NAME.get(name)
            known = [*_FIELDS[method], *_WITHOUT_EFFECT]
            hint = did_you_mean(name, known)
            raise _refused(name, f"({why}) cannot be imported" if why else f"is unknown.{hint}")
    _require_simple_patterns(fields)
    base = given.get("base_model_name_or_path")
    return AdapterConfig(
        method=method,
        task_type=task,
        base_model_name=base[:256] if isinstance(base, str) and base else None,
        fields=fields,
    )


def _decoded(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_CONFIG_BYTES:
        raise RefusedAdapter(f"adapter_config.json has more than {MAX_CONFIG_BYTES:,} bytes.")
    try:
        found = decode(content.decode())
    except (UnicodeDecodeError, BadJson) as error:
        raise RefusedAdapter(f"adapter_config.json cannot be read: {error}.") from None
    if not isinstance(found, dict):
        raise RefusedAdapter("adapter_config.json is not a JSON object.")
    return found


def _method(given: Mapping[str, Any]) -> Method:
    given_method = given.get("peft_type")
    for method in _FIELDS:
        if given_method == method:
            return method
    raise _refused(
        "peft_type",
        f"is {shown(str(given_method))}; adapters of these types can be imported: "
        f"{', '.join(_FIELDS)}",
    )


def _task(given: Mapping[str, Any]) -> PeftTask | None:
    given_task: object = given.get("task_type")
    known: tuple[PeftTask, ...] = get_args(PeftTask)
    if given_task is None:
        return None
    for task in known:
        if given_task == task:
            return task
    raise _refused(
        "task_type", f"is {shown(str(given_task))}; models are served for {', '.join(known)}"
    )


def _refuse_changed_base(init: Any) -> None:
    if isinstance(init, str) and init.lower().startswith(_CHANGED_BASES):
        raise _refused(
            "init_lora_weights",
            f"is {shown(init)}: the adapter belongs to a base that was changed before training. "
            "Save it with PEFT's path_initial_model_for_weight_conversion, which makes it an "
            "adapter of the original base",
        )


def _require_simple_patterns(fields: Mapping[str, Any]) -> None:
    for name in ("rank_pattern", "alpha_pattern"):
        try:
            require_simple(fields.get(name, ()))
        except ValueError as error:
            raise _refused(name, f"is not accepted: {error}") from None


def _refused(name: str, why: str) -> RefusedAdapter:
    return RefusedAdapter(f"adapter_config.json: {shown(name)[1:-1]} {why}.")
