"""What a recipe asks of the machine, of its packages and of the launcher."""

import importlib.util
import json
import os
import sys
from pathlib import Path

from hindi_babylm.recipe.given import Given
from hindi_babylm.recipe.optimizers import INSTALLED_AS, OPTIMIZER_PACKAGES
from hindi_babylm.recipe.stock import compile_backends
from hindi_babylm.storage import UserError, suggestion


def check_machine(given: Given) -> None:
    """Raise UserError for processes, GPUs, packages, files and compilers that are not there."""
    values = given.values
    for name in ("fsdp", "ddp_backend"):
        if values[name] and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise UserError(
                f"{given.first(name)} needs several processes: start with accelerate launch or torchrun, or leave it "
                "out"
            )
    for name in ("fsdp_config", "deepspeed"):
        _check_settings(given, name)
    for name, wanted in {
        "precision": values["precision"] == "fp16",
        "fp16": values["fp16"],
        "tf32": values["tf32"],
    }.items():
        if wanted and (values["use_cpu"] or not _may_have_gpu()):
            why = given.other("use_cpu", name) if values["use_cpu"] else "there is none"
            raise UserError(f"{given.first(name)} needs a CUDA GPU, and {why}: {WITHOUT_GPU[name]}")
    optimizer = next((package for name, package in OPTIMIZER_PACKAGES.items() if name in values["optim"]), None)
    packages = {
        "optim": optimizer,
        "use_liger_kernel": values["use_liger_kernel"] and "liger_kernel",
        "deepspeed": values["deepspeed"] and "deepspeed",
    }
    for key, package in packages.items():
        if package and importlib.util.find_spec(package) is None:
            name = INSTALLED_AS.get(package, package)
            raise UserError(
                f"{given.first(key)} needs the package {name}, which is not installed: install it, or leave {key} out"
            )
    backend, backends = values["torch_compile_backend"], compile_backends()
    if backend is not None and backends is not None and backend not in backends:
        raise UserError(f"{given.first('torch_compile_backend')}: {suggestion(backend, backends)}")


def _check_settings(given: Given, name: str) -> None:
    """Check a key that holds an object or the path of a JSON file with one."""
    value = given.values[name]
    if isinstance(value, str):
        try:
            value = json.loads(Path(value).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{given.first(name)}: cannot read the file: {error.strerror}") from error
        except ValueError as error:
            raise UserError(f"{given.first(name)}: the file is not JSON: {error}") from error
    if value is not None and (not isinstance(value, dict) or not value):
        raise UserError(f"{given.first(name)}: expected an object of settings, or the path of a JSON file with one")


def _may_have_gpu() -> bool:
    """Tell quickly where there is certainly no GPU; whether one can be used is for torch to say, seconds later."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return not sys.platform.startswith("linux") or any(map(os.path.exists, GPU_DEVICES))


# The files by which a driver offers its GPUs: NVIDIA's, those of its boards, of AMD, and of Windows to its Linux.
GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/kfd", "/dev/dxg")

# What asks for a GPU, and the way out without one.
WITHOUT_GPU = {"precision": "take auto, bf16 or fp32", "fp16": "leave it out", "tf32": "leave it out"}
