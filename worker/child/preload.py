"""The imports of the forkserver before it forks the first child. Nothing else runs here.

A thread pool or a CUDA context that exists before a fork does not work after it. So torch is
limited to one thread first; each child sets its own number. On a machine with CUDA, only the
child imports peft, because peft loads bitsandbytes, which queries the GPU's capability.
`device_count` uses the driver's NVML and creates no context.
"""

import importlib

import torch

torch.set_num_threads(1)

if torch.cuda.device_count() == 0:
    importlib.import_module("worker.child.main")
else:
    importlib.import_module("core.models.load")
