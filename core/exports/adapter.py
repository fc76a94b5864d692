"""Writes the adapter alone, in PEFT's layout, with the tokenizer that it is served with."""

from core.artifacts.manifest import read_manifest
from core.exports.bundle_files import copy_adapter, copy_tokenizer
from core.exports.plain_lora import has_patterns, write_for_vllm
from core.spec.export_steps import WriteStep, Written
from core.spec.strategy import LowRankSpec


def write_adapter_folder(step: WriteStep) -> Written:
    """Write the adapter as it was trained; for vLLM, with one scale for all layers."""
    step.out.mkdir(parents=True)
    is_low_rank = isinstance(read_manifest(step.bundle).strategy, LowRankSpec)
    if step.options.format == "vllm" and is_low_rank and has_patterns(step.bundle):
        write_for_vllm(step.bundle, step.out)
        copy_tokenizer(step.bundle, step.out)
    else:
        copy_adapter(step.bundle, step.out)
    return Written()
