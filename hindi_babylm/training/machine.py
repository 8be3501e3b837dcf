"""Take from the machine what launchers and allocators leave unused, and tell what was taken."""

import ctypes
import os
import platform
import re
import sys
from pathlib import Path

import torch


def set_up_machine() -> None:
    """Set the threads and the memory of this process, before a model is made."""
    use_all_cores()
    keep_freed_memory()


def use_all_cores() -> None:
    """Undo the one thread that `accelerate launch` gives to a process on a CPU unless told another number."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and os.environ.get("OMP_NUM_THREADS") == "1" and not torch.cuda.is_available():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: giving activations back to the kernel at every step costs a fifth of it.

    See benchmarks/malloc.py. It matters on a CPU only; elsewhere nothing large is allocated here.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        mmap_threshold, trim_threshold, top_pad = -3, -1, -2  # malloc.h
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(top_pad, 2**28)


def peak_memory_bytes() -> int:
    """Return the peak memory of this process: of the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    # Linux's own figure comes first: getrusage's begins with the peak of the process that started this one.
    found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text("ascii"), re.MULTILINE) if status.exists() else None
    if found is not None:
        return int(found[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere
