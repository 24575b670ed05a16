"""Tasks and inputs: synthetic tasks, images read by pixels, and sequences from files."""

from collections.abc import Callable

from gradflow.spec import make_from_spec
from gradflow.tasks.adding import adding, adding_1997, adding_2013
from gradflow.tasks.chaotic import lorenz, mackey_glass
from gradflow.tasks.copying import copy, delayed_copy, delayed_xor, memorisation
from gradflow.tasks.image_tasks import digits, mnist
from gradflow.tasks.inputs import make_inputs
from gradflow.tasks.latch import latch
from gradflow.tasks.marked import multiplication, xor
from gradflow.tasks.parity import modular_arithmetic, parity
from gradflow.tasks.symbols import permutation, temporal_order
from gradflow.tasks.task import Batch, Task

TASKS: dict[str, Callable[..., Task]] = {
    "adding": adding,
    "adding_1997": adding_1997,
    "adding_2013": adding_2013,
    "copy": copy,
    "delayed_copy": delayed_copy,
    "delayed_xor": delayed_xor,
    "digits": digits,
    "latch": latch,
    "lorenz": lorenz,
    "mackey_glass": mackey_glass,
    "memorisation": memorisation,
    "mnist": mnist,
    "modular_arithmetic": modular_arithmetic,
    "multiplication": multiplication,
    "parity": parity,
    "permutation": permutation,
    "temporal_order": temporal_order,
    "xor": xor,
}
"""The tasks by name; options are those of each function."""

__all__ = ["TASKS", "Batch", "Task", "make_inputs", "resolve_task"]


def resolve_task(spec: str) -> Task:
    """Makes the task that a spec names, such as ``adding`` or ``copy(lag=100)``.

    Raises:
      TypeError: If the value of an option has the wrong type.
      ValueError: If the task, an option or the value of an option does not exist.
    """
    return make_from_spec("task", spec, TASKS)
