"""What the check of an uploaded adapter found, and the parts that an import may read."""

from typing import Any, Literal

from pydantic import Field

from core.spec.base import Spec

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
"""The files of an adapter, as PEFT names them."""

Method = Literal["LORA", "IA3", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"]
"""The methods of PEFT that an import can express, by `peft_type`."""

PeftTask = Literal["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM"]


class AdapterReport(Spec):
    """The result of checking an uploaded file of purpose `adapter`, by its content."""

    holds: Literal["archive", "weights", "config", "other"] | None = Field(
        description="`weights` or `config`: one file of a folder that was uploaded in several; "
        "None if the file is refused"
    )
    files: tuple[str, ...] = Field((), description="of an archive, up to a limit")
    method: Method | None = None
    task_type: PeftTask | None = None
    base_model_name: str | None = Field(None, description="what the adapter says it belongs to")
    tensors: int = 0
    parameters: int = 0
    problem: str | None = Field(None, description="why nothing can be imported from the file")

    @property
    def usable(self) -> bool:
        return self.problem is None


class AdapterConfig(Spec):
    """`adapter_config.json`, checked: the fields that change what the adapter computes.

    `fields` are those of the method, by PEFT's names, and are all that PEFT is given later.
    """

    method: Method
    task_type: PeftTask | None
    base_model_name: str | None
    fields: dict[str, Any]


class TensorInfo(Spec):
    """One tensor of a safetensors file."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class AdapterParts(Spec):
    """What an import reads of a checked folder."""

    config: AdapterConfig
    tensors: tuple[TensorInfo, ...]
    chat_template: str | None = Field(None, description="of its tokenizer, if it has one")
    labels: tuple[str, ...] = Field((), description="the label names of its config.json, in order")
