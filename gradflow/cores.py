"""The cores of a CPU as devices of JAX, over which `gradflow.devices` distributes computations."""

import contextlib
import os

import jax

PATIENCE = "--xla_cpu_collective_call_terminate_timeout_seconds=3600"
"""XLA's flag by which CPU devices wait up to an hour for each other in a sum over a batch.

By default XLA aborts the process after 40 s (and warns after 20 s). On a busy machine, one device's
program can wait longer than that for a core while the other has finished its share.
"""


def use_all_cores() -> None:
    """Makes a device of every core that this process may use; call it before any computation.

    One program uses all cores in large products alone. It has no effect where a number of
    devices is set (``JAX_NUM_CPU_DEVICES``), or after JAX has initialised its devices.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_collective_call_terminate_timeout" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {PATIENCE}".strip()
    is_set = "host_platform_device_count" in flags
    if is_set or jax.config.values["jax_num_cpu_devices"] > 0:
        return
    with contextlib.suppress(RuntimeError):  # it has looked for them
        jax.config.update("jax_num_cpu_devices", num_cores())


def num_cores() -> int:
    """Counts the cores that this process may use."""
    return len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))
