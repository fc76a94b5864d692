"""What the forkserver imports before it forks the first child: imports, and nothing else.

A thread pool or a CUDA context that exists before a fork is broken after it. So torch is
told to stay single-threaded first; a child sets its own number of threads. On a machine
with CUDA peft is left to the child: it loads bitsandbytes, which asks CUDA for its
capability. `device_count` asks the driver's NVML and creates no context.
"""

import importlib

import torch

torch.set_num_threads(1)

_ALWAYS = (
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.tokenization_utils_tokenizers",
    "transformers.models.llama.modeling_llama",
    "core.models.load",
)
_WITHOUT_CUDA = ("core.training.recipe", "core.artifacts.archive")

for _module in _ALWAYS + (_WITHOUT_CUDA if torch.cuda.device_count() == 0 else ()):
    importlib.import_module(_module)
