"""Run a recipe under DeepSpeed on CPU processes, which accelerate offers on GPUs only.

`python -m tests.deepspeed_run RECIPE`, by torchrun, where the package deepspeed is installed.
"""

import os
import sys
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from hindi_babylm.run import main

if __name__ == "__main__":
    os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"}

    def on_cpus(self: Any) -> None:
        """Take the CPU where accelerate would count GPUs."""
        self.device = torch.device("cpu")

    PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_CPU)
    PartialState.set_device = on_cpus
    main([word for word in sys.argv[1:] if word not in ("--use_cpu", "true")])  # a CPU is no place for DeepSpeed
