"""Run a recipe under FSDP on CPU processes, which accelerate offers on GPUs only: `python -m tests.fsdp_run RECIPE`."""

import os
import sys
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from hindi_babylm.run import main
from hindi_babylm.signals import end_process

if __name__ == "__main__":
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    original = AcceleratorState.__init__

    def on_cpus(self: Any, *args: Any, **kwargs: Any) -> None:
        """Take CPU processes for GPUs where accelerate decides whether to shard."""
        if not AcceleratorState._shared_state:  # the first, which decides for all
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        original(self, *args, **kwargs)

    AcceleratorState.__init__ = on_cpus
    main(sys.argv[1:])
    end_process()
