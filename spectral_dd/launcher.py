"""Which share of a sweep this process takes: what the user says, or what the program that started it says.

Processes never talk to each other. A launcher only tells each its number, and how many there are.
"""

import dataclasses
import os
from collections.abc import Mapping

import jax

from spectral_dd.errors import InputError


@dataclasses.dataclass(frozen=True)
class Task:
    """Share `index` of `count`, and who said so."""

    index: int = 0
    count: int = 1
    source: str = ""

    def __str__(self) -> str:
        return f"task {self.index} of {self.count} ({self.source})"


# Of launchers that start the processes of one job: the variables with the number of a process and how many there are.
# Slurm sets the second one in job steps only: the batch script itself is one process, whatever --ntasks is.
RANKS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"),
)


def this_task(
    task_index: int | None = None, task_count: int | None = None, environment: Mapping[str, str] = os.environ
) -> Task:
    """The share of this process.

    Both numbers, if given; else those of `jax.distributed`, if it is initialised, or of the environment: Open MPI, a
    step of a Slurm job, or the hosts of a TPU slice. In a Slurm array each task of the array is so many processes.

    Raises:
      InputError: one number is missing or out of range.
    """
    if task_index is not None or task_count is not None:
        if task_index is None:
            raise InputError(f"--task_count={task_count}: is the number of tasks; --task_index says which one this is")
        if task_count is None:
            raise InputError(f"--task_index={task_index}: is one task's number; --task_count says how many there are")
        if not 0 <= task_index < task_count:
            raise InputError(f"--task_index={task_index}: must be a whole number from 0 to --task_count - 1")
        return Task(task_index, task_count, "--task_index")
    array, rank = _array(environment), _rank(environment)
    sources = [task.source for task in (array, rank) if task.source]
    return Task(array.index * rank.count + rank.index, array.count * rank.count, ", ".join(sources))


def _rank(environment: Mapping[str, str]) -> Task:
    """Of the processes of one job."""
    if jax.distributed.is_initialized():
        return Task(jax.process_index(), jax.process_count(), "jax.distributed")
    for index_name, count_name in RANKS:
        if index_name in environment and count_name in environment:
            if count_name == "TPU_WORKER_HOSTNAMES":
                count = len(environment[count_name].split(","))
            else:
                count = _number(environment, count_name)
            index = _number(environment, index_name)
            if index >= count:
                raise InputError(f"{index_name}={index}: must be below {count}, {count_name}; {_HELP}")
            return Task(index, count, f"{index_name}={index}")
    return Task()


def _array(environment: Mapping[str, str]) -> Task:
    """Of the tasks of a Slurm array."""
    name = "SLURM_ARRAY_TASK_ID"
    if name not in environment:
        return Task()
    index, count = _number(environment, name), _number(environment, "SLURM_ARRAY_TASK_COUNT")
    first, last = _number(environment, "SLURM_ARRAY_TASK_MIN"), _number(environment, "SLURM_ARRAY_TASK_MAX")
    step = (last - first) // max(1, count - 1) or 1
    place, rest = divmod(index - first, step)
    if first + step * (count - 1) != last or rest or not 0 <= place < count:
        raise InputError(
            f"{name}={index}: the array has {count} tasks from {first} to {last} at no even distance; {_HELP}"
        )
    return Task(place, count, f"{name}={index}")


_HELP = "--task_index and --task_count say which share this process takes"


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    if not value.isdecimal():
        raise InputError(f"{name}={value}: must be a whole number; {_HELP}")
    return int(value)
