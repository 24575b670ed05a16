"""The memory that a run needs at least, compared with the machine's before it allocates any."""

import contextlib
import dataclasses
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import jax

from gradflow.study.config import Config

ARRAYS = (
    ("num_seeds", "num_sequences", "num_steps", "input_size"),
    ("num_seeds", "num_layers", "hidden_size"),
    ("num_seeds", "units"),
)
"""The fields whose product is the size of an array that is held at once in every study that has
them: the inputs of all runs, or a number for each of their steps; and a carry of each seed."""

MATRICES = (("num_seeds", "hidden_size", "hidden_size"), ("num_seeds", "units", "units"))
"""The fields whose product is the size of the weights of all seeds, of a cell that is dense."""

LARGEST = 2**60
"""The bytes of weights from which XLA, which counts to 2^63, may abort instead of raising."""

_GROUPS = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of control groups, version 2 and 1


def check_memory(config: Config) -> None:
    """Refuses a run that certainly needs more memory than there is.

    The bound is a low one, so that no run that could work is refused: what a study needs besides
    depends on its cells.

    Raises:
      ValueError: If one of `ARRAYS` is larger than the memory of this machine and of its devices,
        or one of `MATRICES` than `LARGEST`.
    """
    itemsize = 8 if config.precision == "float64" else 4
    available = memory()
    for array in (*ARRAYS, *MATRICES):
        fields = [(getattr(config, name, None) or 1, name) for name in array]
        needed = itemsize * math.prod(max(size, 1) for size, _ in fields)
        if needed > (available if array in ARRAYS else LARGEST):
            size, name = max(fields)
            raise ValueError(
                f"This run needs at least {amount(needed)} of memory, and this machine has "
                f"{amount(available)}. Reduce --{name}={size}."
            )


def out_of_memory(error: Exception) -> bool:
    """Whether an error of Python, NumPy or XLA reports that an allocation failed."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def advice(config: type[Config], error: Exception) -> str:
    """Writes the message of a run whose allocation failed."""
    sizes = dict.fromkeys(name for array in ARRAYS for name in (*array, "batch_size"))
    names = [f"--{one.name}" for one in dataclasses.fields(config) if one.name in sizes]
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"This run needs more memory than this machine has, {amount(memory())} ({reason}). "
        f"Reduce {' or '.join(names)}."
    )


def memory() -> int:
    """The memory that this process can have in bytes: of the machine, or of its devices if larger.

    That of the machine is limited by its control group and by the process's own limits.
    """
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max(min([physical, *_limits()]), sum(one.get("bytes_limit", 0) for one in stats))


def amount(number: float) -> str:
    """Writes a number of bytes: ``40 TB``."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} EB"


def _limits() -> Iterator[int]:
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit
    for name in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # there is no such file, or it says "max"
            yield int((_GROUPS / name).read_text())
