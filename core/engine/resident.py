"""A base model in memory with the adapters that are loaded on it, one active at a time."""

from collections.abc import Callable, Collection
from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel

from core.engine.residency import Residency
from core.errors import Unavailable


class ResidentBase:
    """Owns the model and its PEFT adapters, named by the hash of their archive.

    PEFT puts its layers into the model in place, so `model` is what is run, whether an
    adapter is active or not. Base and adapters keep the dtypes that
    `PeftModel.from_pretrained` gives: an adapter that is taken away and run with PEFT
    answers the same.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapter_folder: Callable[[str], Path],
        max_adapters: int,
    ) -> None:
        self.model = model.eval()
        self._adapters: Residency[str, None] = Residency(max_adapters, self._load, self._unload)
        self._adapter_folder = adapter_folder
        self._peft: PeftModel | None = None
        self._active: str | None = None

    def resident_adapters(self) -> list[str]:
        return self._adapters.keys()

    def activate(self, adapter_sha256: str | None, in_use: Collection[str]) -> PreTrainedModel:
        """Return the model with this adapter switched on, or none.

        Loads the adapter when it is not resident, in place of one that is not `in_use`.
        Raises Unavailable `adapter_corrupt` when it does not fit the base.
        """
        if adapter_sha256 is not None:
            self._adapters.acquire(adapter_sha256, in_use)
        if self._peft is not None and adapter_sha256 != self._active:
            if adapter_sha256 is None:
                self._peft.base_model.disable_adapter_layers()
            else:
                self._peft.base_model.enable_adapter_layers()
                self._peft.base_model.set_adapter(adapter_sha256, inference_mode=True)
            self._active = adapter_sha256
        return self.model

    def _load(self, sha256: str) -> None:
        folder = self._adapter_folder(sha256)
        try:
            if not (folder / "adapter_model.safetensors").is_file():
                raise ValueError("adapter_model.safetensors is missing")
            if self._peft is None:
                config = PeftConfig.from_pretrained(str(folder))
                config.inference_mode = True
                self._peft = PeftModel(self.model, config, adapter_name=sha256)
                self._peft.eval()
                self._active = sha256
            found = self._peft.load_adapter(
                str(folder), sha256, torch_device=str(self.model.device)
            )
            if found.missing_keys or found.unexpected_keys:
                raise ValueError(
                    f"{len(found.missing_keys)} weights are missing and "
                    f"{len(found.unexpected_keys)} are not of this adapter"
                )
        except Exception as error:
            self._unload(sha256)
            raise Unavailable(
                f"The adapter {sha256[:12]} cannot be loaded on its base: {error}",
                param="adapter",
                code="adapter_corrupt",
                retry_after_seconds=60,
            ) from error

    def _unload(self, sha256: str) -> None:
        if self._peft is None or sha256 not in self._peft.peft_config:
            return
        others = [name for name in self._peft.peft_config if name != sha256]
        if others:
            self._peft.base_model.set_adapter(others[0], inference_mode=True)
        self._peft.delete_adapter(sha256)
        # Which adapter PEFT has switched on now is its own affair: force the next switch.
        self._active = ""
