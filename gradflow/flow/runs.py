"""Many runs of one measurement."""

from collections.abc import Callable
from typing import Any

import jax


def over_runs(measure: Callable[..., Any]) -> Callable[..., Any]:
    """A measurement of one run, mapped over a leading axis of all its arguments.

    `jax.vmap` on an accelerator. On the CPU one run after the other: the matrix unit is full with
    one of them, and what a run does until it converges does not wait for the slowest of all.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(measure)
    return lambda *arguments: jax.lax.map(lambda run: measure(*run), arguments)


def jit_to_run_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` for what runs once or a few times: half the time to compile.

    On the CPU, LLVM optimises at level 1 in place of 3. The products are a library's either way.
    """
    if jax.default_backend() != "cpu":
        return jax.jit(function)
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 1})
