"""What the forkserver imports before it forks the first child: imports, and nothing else.

A thread pool or a CUDA context that exists before a fork is broken after it. So torch is
told to stay single-threaded first; a child sets its own number of threads. On a machine
with CUDA peft is left to the child: it loads bitsandbytes, which asks CUDA for its
capability. `device_count` asks the driver's NVML and creates no context.
"""

import importlib

import torch

torch.set_num_threads(1)

if torch.cuda.device_count() == 0:
    importlib.import_module("worker.child.main")
else:
    importlib.import_module("core.models.load")
