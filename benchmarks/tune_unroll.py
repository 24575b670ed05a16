"""The table of `gradflow.planner.rules`: each way to run a step, timed by its size.

float32, forward and backward of mean(h²). The smallest CPU time of a few runs is taken, which other
work on the machine disturbs less than wall time. The rule of the lowest time is printed for
each cell and shape with the number of weights that multiply the carry, to be written into RULES.

    python benchmarks/tune_unroll.py --cells=lstm,gru,rnn
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from absl import app, flags

from gradflow import unroll
from gradflow.cells import CELLS
from gradflow.planner import ways
from gradflow.planner.plan import plan_of
from gradflow.planner.rules import Rule, recurrent_weights

_CELLS = flags.DEFINE_list("cells", ["lstm", "gru", "rnn"], "Cells.")
_SHAPES = flags.DEFINE_list(
    "shapes",
    ["32x64x64x64", "32x64x64x128", "16x64x64x256", "32x32x128x512"],
    "Each as batch x T x input x hidden.",
)
_CHUNKS = flags.DEFINE_list("chunks", ["8", "32", "128"], "Steps in a chunk.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Runs of each, in turns.", lower_bound=1)


def gradient(name: str, sizes: Sequence[int], rule: Rule) -> Callable[[], Any]:
    """The compiled gradient of mean(h²) by a rule."""
    batch, num_steps, input_size, hidden_size = sizes
    cell = CELLS[name](input_size, hidden_size)
    params = cell.init(jax.random.key(0))
    inputs = jax.random.normal(jax.random.key(1), (num_steps, batch, input_size))
    method = "scan" if rule.scan else "planned"

    def loss(params: Any, inputs: jax.Array) -> jax.Array:
        return jnp.mean(unroll(cell, params, inputs, method=method).outputs ** 2)

    with mock.patch.object(ways, "choose", lambda plan, batch: rule):
        compiled = jax.jit(jax.grad(loss)).lower(params, inputs).compile()
    return partial(compiled, params, inputs)


def weights_in(name: str, sizes: Sequence[int]) -> int:
    """The number of weights that multiply the carry at a step."""
    cell = CELLS[name](*sizes[2:])
    params = jax.eval_shape(cell.init, jax.random.key(0))
    carry = jax.eval_shape(cell.initial_carry)
    return recurrent_weights(plan_of(cell.step, params, carry, jnp.zeros(sizes[2])))


def cpu_times(runs: dict[Rule, Callable[[], Any]]) -> dict[Rule, float]:
    """The smallest CPU time of each in seconds."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(_REPEATS.value + 1):  # the first is slower and so never the smallest
        for rule, run in runs.items():
            start = time.process_time()
            jax.block_until_ready(run())
            best[rule] = min(best[rule], time.process_time() - start)
    return best


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    print("| cell | shape | weights | best rule | ms | of the plain scan's |\n" + "|---" * 6 + "|")
    for name in _CELLS.value:
        for shape in _SHAPES.value:
            sizes = [int(size) for size in shape.split("x")]
            weights = weights_in(name, sizes)
            plain = Rule(weights, sizes[0], scan=True, hoist=False, chunk=int(_CHUNKS.value[0]))
            rules = [plain] + [
                Rule(weights, sizes[0], scan=False, hoist=hoist, chunk=int(chunk))
                for hoist in (False, True)
                for chunk in _CHUNKS.value
            ]
            times = cpu_times({rule: gradient(name, sizes, rule) for rule in rules})
            best = min(rules, key=lambda rule: times[rule])
            how = "scan" if best.scan else f"hoist={best.hoist}, chunk={best.chunk}"
            share = times[best] / times[plain]
            print(
                f"| {name} | {shape} | {weights} | {how} | {1e3 * times[best]:.1f} | {share:.2f} |"
            )


if __name__ == "__main__":
    app.run(main)
