"""Lyapunov exponents of a random tanh net, against the plain scan with a Householder QR a step.

Both run in one process, one after the other in turn, and the medians are printed as rows of a
Markdown table: milliseconds a step, how many times faster than the plain scan, and the largest
difference of an exponent from the plain scan's, as a share of the spectrum's width.

    python benchmarks/lyapunov.py --num_steps=300 --hidden_size=256
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from absl import app, flags
from jaxtyping import Array
from turns import medians

from gradflow.cell import Cell, Params
from gradflow.cells import rnn
from gradflow.flow.lyapunov import lyapunov_exponents
from gradflow.unroll import unroll

NUM_STEPS = flags.DEFINE_integer("num_steps", 300, "Steps of the trajectory.")
HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 256, "Units, all of whose exponents are taken.")
GAIN = flags.DEFINE_float("gain", 1.5, "Gain of the random recurrent matrix.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Runs of each, of which the median counts.")


def plain(cell: Cell, params: Params, inputs: Array) -> Array:
    """All columns pushed through the step, and `jnp.linalg.qr` at every step."""
    carries = unroll(cell, params, inputs).carries

    def body(frame: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        carry, x = at
        _, jvp = jax.linearize(lambda s: cell.step(params, s, x)[0], carry)
        frame, factor = jnp.linalg.qr(jax.vmap(jvp, in_axes=1, out_axes=1)(frame))
        return frame, jnp.log(jnp.abs(jnp.diagonal(factor)))

    noise = jax.random.normal(jax.random.key(0), (carries.shape[1], carries.shape[1]), jnp.float32)
    frame = jnp.linalg.qr(noise.astype(carries.dtype).T)[0]  # the start of lyapunov_exponents
    _, growths = jax.lax.scan(body, frame, (carries[:-1], inputs))
    return growths.mean(axis=0)


def main(argv: Sequence[str]) -> None:
    del argv
    cell = rnn(0, HIDDEN_SIZE.value, recurrent_init=f"normal(gain={GAIN.value})")
    params = cell.init(jax.random.key(0))
    carry = jax.random.normal(jax.random.key(1), (HIDDEN_SIZE.value,))
    inputs = jnp.zeros((NUM_STEPS.value, 0))
    cell = cell._replace(initial_carry=lambda: carry)
    compiled = jax.jit(plain, static_argnums=0)
    runs: dict[str, Callable[[], Array]] = {
        "plain scan": lambda: compiled(cell, params, inputs),
        "lyapunov_exponents": lambda: lyapunov_exponents(cell, params, inputs).exponents,
        "with qr_every=2": lambda: lyapunov_exponents(cell, params, inputs, qr_every=2).exponents,
    }
    exponents = {name: run() for name, run in runs.items()}  # compiles
    report(medians(runs, REPEATS.value), exponents)


def report(times: dict[str, float], exponents: dict[str, Array]) -> None:
    reference, *_ = exponents.values()
    width = jnp.ptp(reference)
    base, *_ = times.values()
    print("| method | ms a step | speed | difference |\n| --- | --- | --- | --- |")
    for name, median in times.items():
        off = jnp.max(jnp.abs(exponents[name] - reference)) / width
        print(
            f"| {name} | {1e3 * median / NUM_STEPS.value:.2f} | {base / median:.1f} x | {off:.0e} |"
        )


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    app.run(main)
