"""What a sweep needs of hardware that is not here: XLA compiles for it, in a process of its own.

The compilers are in the packages of the extras `tpu` and `cuda`. Nothing runs: times are lower bounds, from the FLOPs
and bytes of the compiled programs and the data sheets, and on a TPU also from the cycles that its compiler expects of
each kernel. Neither launches count nor, on a GPU, anything but memory and products.
"""

import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
from jax.experimental import topologies

from spectral_dd import devices
from spectral_dd.config import Config
from spectral_dd.errors import InputError
from spectral_dd.planning.hardware import Chip, Target
from spectral_dd.planning.hlo import Program
from spectral_dd.programs import Arrays, Programs
from spectral_dd.sweeps import Lowering
from spectral_dd.training import EVALUATION_BATCH

_GPU_TEXT = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 shared_memory_per_block: 49152
  shared_memory_per_core: {shared} shared_memory_per_block_optin: {optin} core_count: {cores} l2_cache_size: {cache}
  memory_bandwidth: {bandwidth:.0f} device_memory_size: {memory:.0f} clock_rate_ghz: {clock:.3f}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 12 }} device_description_str: "NVIDIA {name}"
"""


class Job(NamedTuple):
    """A pack to compile."""

    configs: Sequence[Config]
    num_classes: int
    shapes: Arrays
    lowering: Lowering
    num_devices: int  # that the pack is spread over
    programs: Sequence[str]


class Account(NamedTuple):
    """The compiler's account of a program. Times, bytes and FLOPs are of one device."""

    at_once: int  # members that a device computes at once
    memory: int  # bytes that it needs of a device
    temporary: int  # bytes of them that are not arguments or results
    bytes: float  # of a step of training, or of the whole program
    flops: float
    cycles: float  # that a TPU's compiler expects of its kernels; 0 on a GPU
    by_kind: dict[str, float]  # bytes by what moves them
    collectives: int
    host_transfers: int
    compile_seconds: float

    def bounds(self, chip: Chip, config: Config) -> dict[str, float]:
        """Seconds that it takes at least, by what takes them."""
        return {
            "FLOPs": self.flops / chip.flops(config),
            "bytes": self.bytes / chip.bandwidth,
            "cycles": self.cycles / chip.clock,
        }

    def seconds(self, chip: Chip, config: Config) -> float:
        """By the longest of these."""
        return max(self.bounds(chip, config).values())


def compile_for(target: Target, jobs: Sequence[Job]) -> Iterator[dict[str, Account]]:
    """Compiles packs for a target, one after another: the account of each program by its name.

    Raises:
      InputError: not even one member fits, or there is no such slice of TPUs.
    """
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        # There is no TPU that two processes could want.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        # There is nothing to time algorithms on.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip(),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-c", "from spectral_dd.planning import target; target.serve()"]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=log) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            pickle.dump((target, list(jobs), jax.config.read("jax_enable_x64")), process.stdin)
            process.stdin.close()
            for _ in jobs:
                line = process.stdout.readline()
                if not line:
                    log.seek(0)
                    last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
                    raise InputError(f"--target={target.name}: its compiler failed: {last}")
                answer = json.loads(line)
                if isinstance(answer, str):
                    raise InputError(answer)
                yield {name: Account(*values) for name, values in answer.items()}
        finally:
            process.kill()


def serve() -> None:
    """The other process: jobs from its input, a line of JSON for each on its output."""
    answers, sys.stdout = sys.stdout, sys.stderr  # compilers print
    target, jobs, x64 = pickle.load(sys.stdin.buffer)
    try:
        there = _devices(target)
        for job in jobs:
            with devices.numerics(x64):
                accounts = {name: account for name, account in _accounts(target, job, there[: job.num_devices])}
            print(json.dumps(accounts), file=answers, flush=True)
    except InputError as error:
        print(json.dumps(f"--target={target.name}: {error}"), file=answers, flush=True)


def _devices(target: Target) -> Sequence[jax.Device]:
    if not target.chip.gpu:
        try:
            return topologies.get_topology_desc(platform="tpu", topology_name=target.name).devices
        except jax.errors.JaxRuntimeError as error:
            raise InputError(f"there is no such slice: {str(error).splitlines()[0]}") from None
    gpu, chip = target.chip.gpu, target.chip
    major, minor = gpu["capability"].split(".")
    text = _GPU_TEXT.format(
        **gpu,
        major=major,
        minor=minor,
        fpus=64 if major == "8" else 128,
        optin=gpu["shared"] - 1024,
        bandwidth=chip.bandwidth,
        memory=chip.memory,
        clock=chip.clock / 1e9,
    )
    return topologies.get_topology_desc(
        platform="cuda", topology_name="", target_config=text, topology=f"1x1x{target.num_devices}"
    ).devices


def _accounts(target: Target, job: Job, on: Sequence[jax.Device]) -> Iterator[tuple[str, Account]]:
    programs = Programs(job.configs, job.num_classes, job.shapes, on, lowering=job.lowering, memory_limit=target.memory)
    for name in job.programs:
        started = time.monotonic()
        compiled, at_once, memory = programs[name]
        seconds = time.monotonic() - started
        program = Program(compiled.as_text())
        if name == "training":
            cost = program.step()
        else:
            batches = max(c.train_size for c in job.configs) / EVALUATION_BATCH
            cost = program.cost(unknown_trips=math.ceil(batches))
        yield name, Account(
            at_once, memory, compiled.memory_analysis().temp_size_in_bytes, cost.bytes, cost.flops, cost.cycles,
            cost.by_kind, program.collectives(), program.host_transfers(), seconds,
        )  # fmt: skip
