"""The files that start a run on several GPUs and nodes: accelerate's own loader takes them, and they train."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType

from tests.runs import ROOT, assert_equal_runs, command, environment

WriteRecipe = Callable[..., Path]
# accelerate's launcher says one thread where nothing is said, which a run on a CPU then undoes.
THREADS = {"OMP_NUM_THREADS": "2"}
CONFIGS = {"one_node.yaml": (1, 4), "two_nodes.yaml": (2, 8)}
# Slurm's commands, for two nodes that are both this machine.
SRUN = """#!/usr/bin/env bash
for node in 0 1; do
    SLURM_NODEID=$node "$@" &
    children="$children $!"
done
code=0
for child in $children; do wait "$child" || code=$?; done
exit "$code"
"""
SCONTROL = "#!/usr/bin/env bash\necho 127.0.0.1\necho 127.0.0.1\n"


@pytest.mark.parametrize("name", CONFIGS)
def test_accelerate_takes_the_files(name: str) -> None:
    """Accelerate's loader and launcher read each file as machines and processes, and leave precision to the recipe."""
    path = ROOT / "docs" / "accelerate" / name
    machines, processes = CONFIGS[name]
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert (config.num_machines, config.num_processes) == (machines, processes)
    assert config.distributed_type == DistributedType.MULTI_GPU
    words = ["--config_file", str(path), "--machine_rank", "0", "--main_process_ip", "node1", "-m", "hindi_babylm.run"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert (args.num_machines, args.num_processes, args.multi_gpu) == (machines, processes, True)
    assert args.mixed_precision == "no"


def test_every_file_is_tested_and_told() -> None:
    """Each configuration has its numbers above and is named in the README and by its own example."""
    files = sorted((ROOT / "docs" / "accelerate").iterdir())
    assert [path.name for path in files] == sorted(CONFIGS)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in files:
        assert f"docs/accelerate/{path.name}" in readme
        assert f"--config_file docs/accelerate/{path.name}" in path.read_text(encoding="utf-8")


@pytest.fixture
def two_nodes(write_recipe: WriteRecipe, tmp_path: Path) -> Callable[..., tuple[list[str], dict[str, Any]]]:
    """Return what starts the Slurm job of two nodes on this machine, with a tiny recipe in place of the base one."""
    checkout = tmp_path / "checkout"
    (checkout / "recipes").mkdir(parents=True)
    (checkout / "docs").symlink_to(ROOT / "docs")
    for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)
    launcher = tmp_path / "bin" / "accelerate"
    launcher.write_text(
        f'#!/usr/bin/env bash\nexec {sys.executable} -m accelerate.commands.accelerate_cli "$@"\n', encoding="utf-8"
    )
    launcher.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slurm = {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_NODELIST": "node[1-2]"}
    commands = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])

    def job(recipe: Path, folder: Path) -> tuple[list[str], dict[str, Any]]:
        shutil.copy(recipe, checkout / "recipes" / "base.json")
        words = ["bash", str(ROOT / "docs" / "slurm" / "two_nodes.sbatch"), "--output_dir", str(folder)]
        return [*words, "--use_cpu", "true"], {
            "env": environment(PATH=commands, MASTER_PORT=str(port), **slurm, **THREADS),
            "cwd": checkout,
            "text": True,
        }

    return job


def signalled(number: int, job: int) -> int:
    """Send a signal to the launchers and trainings that a job has started; return how many.

    A launcher gives each training a session of its own, so they are found by their parents.
    """
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
    family = {job}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    found = [pid for pid in family if b"hindi_babylm.run" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    for pid in found:
        os.kill(pid, number)
    return len(found)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are found in /proc")
@pytest.mark.xdist_group("torchrun")  # one launcher at a time: they look for free ports
def test_a_job_of_two_nodes_is_that_of_two_processes(
    write_recipe: WriteRecipe, two_nodes: Callable[..., tuple[list[str], dict[str, Any]]]
) -> None:
    """The Slurm job on two nodes, both of them this machine, signalled and submitted again, has their bits."""
    recipe = write_recipe(
        max_steps=120, eval_strategy="steps", eval_steps=10, save_strategy="steps", save_steps=10, dropout=0.2
    )
    plain = subprocess.run(
        command(recipe, processes=2), capture_output=True, text=True, check=False, env=environment(**THREADS)
    )
    assert plain.returncode == 0, plain.stdout + plain.stderr
    folder = recipe.parent / "nodes"
    words, settings = two_nodes(recipe, folder)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **settings
    ) as job:
        while not (folder / "checkpoints" / "checkpoint_step_10.pt").exists():
            assert job.poll() is None, job.communicate()
            time.sleep(0.1)
        assert signalled(signal.SIGUSR1, job.pid) == 4, "a launcher and a training on each node"
        told, _ = job.communicate(timeout=300)
    assert "Training: batch 8 = 4 x 2 processes" in told
    assert "Stopped after step " in told
    assert job.returncode != 0
    assert not (folder / "results.json").exists()
    done = subprocess.run(words, capture_output=True, check=False, timeout=600, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Resuming from " in done.stdout
    assert_equal_runs(recipe.parent / "run", folder)
