import pytest

from spectral_dd.errors import InputError
from spectral_dd.launcher import this_task

ARRAY = {
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "3",
    "SLURM_ARRAY_TASK_MAX": "9",
}
BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
STEP = {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "2"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}


@pytest.mark.parametrize(
    ("environment", "index", "count"),
    [
        ({}, 0, 1),
        (BATCH, 0, 1),  # the script of a job is one process, whatever it may start
        (STEP, 1, 2),
        (ARRAY, 2, 4),  # 3, 5, 7, 9
        (ARRAY | STEP, 5, 8),
        (OPEN_MPI | STEP, 2, 3),  # a step that mpirun started is one process a node
        ({"TPU_WORKER_ID": "3", "TPU_WORKER_HOSTNAMES": "a,b,c,d"}, 3, 4),
    ],
)
def test_a_launcher_says_which_share_a_process_takes(environment, index, count):
    task = this_task(environment=environment)
    assert (task.index, task.count) == (index, count)


def test_what_the_user_says_goes_before():
    task = this_task(1, 3, ARRAY)
    assert (task.index, task.count) == (1, 3)


def test_the_share_and_who_said_so_are_named():
    text = "task 5 of 8 (SLURM_ARRAY_TASK_ID=7, SLURM_PROCID=1)"
    assert str(this_task(environment=ARRAY | STEP)) == text


@pytest.mark.parametrize(
    ("numbers", "environment", "message"),
    [
        ((4, 4), {}, "--task_index=4: must be a whole number from 0 to --task_count - 1"),
        ((None, 4), {}, "--task_count=4: is the number of tasks; --task_index says which one this is"),
        ((), STEP | {"SLURM_PROCID": "x"}, "SLURM_PROCID=x: must be a whole number; --task_index and --task_count say"),
        ((), STEP | {"SLURM_PROCID": "2"}, "SLURM_PROCID=2: must be below 2, SLURM_STEP_NUM_TASKS; --task_index"),
        ((), ARRAY | {"SLURM_ARRAY_TASK_COUNT": "3"}, "SLURM_ARRAY_TASK_ID=7: the array has 3 tasks from 3 to 9 at no"),
    ],
)
def test_numbers_that_cannot_be_are_named(numbers, environment, message):
    with pytest.raises(InputError) as error:
        this_task(*numbers, environment=environment)
    assert str(error.value).startswith(message)
