"""Lyapunov exponents of a random tanh network, against a scan with a Householder QR at every step.

Both run alternately in one process. A row has the median in milliseconds per step, the speed
relative to the plain scan, and the largest difference of an exponent from the plain scan's, as a
fraction of the spectrum's width.

    python benchmarks/lyapunov.py --num_steps=300 --hidden_size=256
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from absl import app, flags
from jaxtyping import Array
from timing import medians, print_head, print_row, set_up

from gradflow.cell import Cell, Params
from gradflow.cells import rnn
from gradflow.flow import lyapunov_exponents
from gradflow.unroll import unroll

_NUM_STEPS = flags.DEFINE_integer("num_steps", 300, "Steps of the trajectory.", lower_bound=1)
_HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 256, "Hidden units and exponents.")
_GAIN = flags.DEFINE_float("gain", 1.5, "Gain of the random recurrent matrix.")
_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed runs of each.", lower_bound=1)


def plain(cell: Cell, params: Params, inputs: Array) -> Array:
    """Pushes all columns through the step, with `jnp.linalg.qr` at every step."""
    carries = unroll(cell, params, inputs).carries

    def body(frame: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        carry, x = at
        _, jvp = jax.linearize(lambda s: cell.step(params, s, x)[0], carry)
        frame, factor = jnp.linalg.qr(jax.vmap(jvp, in_axes=1, out_axes=1)(frame))
        return frame, jnp.log(jnp.abs(jnp.diagonal(factor)))

    noise = jax.random.normal(jax.random.key(0), (carries.shape[1], carries.shape[1]), jnp.float32)
    # The frame from which `lyapunov_exponents` starts: the exponents of a finite run depend on it.
    frame = jnp.linalg.qr(noise.astype(carries.dtype).T)[0]
    _, growths = jax.lax.scan(body, frame, (carries[:-1], inputs))
    return growths.mean(axis=0)


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    set_up(argv)
    cell = rnn(0, _HIDDEN_SIZE.value, recurrent_init=f"normal(gain={_GAIN.value})")
    params = cell.init(jax.random.key(0))
    carry = jax.random.normal(jax.random.key(1), (_HIDDEN_SIZE.value,))
    inputs = jnp.zeros((_NUM_STEPS.value, 0))
    cell = cell._replace(initial_carry=lambda: carry)
    compiled = jax.jit(plain, static_argnums=0)
    runs: dict[str, Callable[[], Array]] = {
        "plain scan": lambda: compiled(cell, params, inputs),
        "lyapunov_exponents": lambda: lyapunov_exponents(cell, params, inputs).exponents,
        "with qr_every=2": lambda: lyapunov_exponents(cell, params, inputs, qr_every=2).exponents,
    }
    times, reference = medians(runs, _REPEATS.value), runs["plain scan"]()
    print_head("method", "ms per step", "speed", "difference")
    for name, taken in times.items():
        off = jnp.max(jnp.abs(runs[name]() - reference)) / jnp.ptp(reference)
        per_step, speed = 1e3 * taken / _NUM_STEPS.value, times["plain scan"] / taken
        print_row(name, f"{per_step:.2f}", f"{speed:.1f} x", f"{off:.0e}")


if __name__ == "__main__":
    app.run(main)
