"""The table of `gradflow.planner.rules`: each way to run a step, timed by its size.

float32, forward and backward of mean(h²), wall time on an idle machine, the smallest of a few runs
in turns. The rule of the lowest time is printed for each cell and shape with the number of weights
that multiply the carry, to be written into RULES. Each device has its share of a batch.

    python benchmarks/tune_unroll.py --cells=lstm,gru,rnn
    JAX_NUM_CPU_DEVICES=2 python benchmarks/tune_unroll.py
"""

import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from absl import app, flags
from passes import Shape, gradient, ready

from gradflow.cells import CELLS
from gradflow.planner import ways
from gradflow.planner.plan import plan_of
from gradflow.planner.rules import Rule, recurrent_weights

_CELLS = flags.DEFINE_list("cells", ["lstm", "gru", "rnn"], "Cells.")
_SHAPES = flags.DEFINE_list(
    "shapes",
    [
        "20x100x2x32",
        "32x96x32x64",
        "32x64x64x128",
        "64x64x64x128",
        "128x64x64x128",
        "32x32x128x512",
    ],
    "Each as batch x T x input x hidden.",
)
_CHUNKS = flags.DEFINE_list("chunks", ["8", "32", "128"], "Steps in a chunk.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Runs of each, in turns.", lower_bound=1)


def run_of(name: str, shape: Shape, rule: Rule) -> Callable[[], Any]:
    """The compiled gradient of mean(h²) by a rule."""
    with mock.patch.object(ways, "choose", lambda plan, batch: rule):
        return ready(*gradient(name, shape, "scan" if rule.scan else "planned"))


def weights_in(name: str, shape: Shape) -> int:
    """The number of weights that multiply the carry at a step."""
    cell = CELLS[name](shape.input_size, shape.hidden_size)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    carry = jax.eval_shape(cell.initial_carry)
    return recurrent_weights(plan_of(cell.step, params, carry, jnp.zeros(shape.input_size)))


def shortest(runs: dict[Rule, Callable[[], Any]]) -> dict[Rule, float]:
    """The smallest wall time of each in seconds."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(_REPEATS.value + 1):  # the first is slower and so never the smallest
        for rule, run in runs.items():
            start = time.perf_counter()
            run()
            best[rule] = min(best[rule], time.perf_counter() - start)
    return best


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    print("| cell | shape | weights | best rule | ms | of the plain scan's |\n" + "|---" * 6 + "|")
    for name in _CELLS.value:
        for text in _SHAPES.value:
            shape = Shape.parse(text)
            weights = weights_in(name, shape)
            plain = Rule(weights, shape.batch, scan=True, hoist=False, chunk=int(_CHUNKS.value[0]))
            rules = [plain] + [
                Rule(weights, shape.batch, scan=False, hoist=hoist, chunk=int(chunk))
                for hoist in (False, True)
                for chunk in _CHUNKS.value
            ]
            times = shortest({rule: run_of(name, shape, rule) for rule in rules})
            best = min(rules, key=lambda rule: times[rule])
            how = "scan" if best.scan else f"hoist={best.hoist}, chunk={best.chunk}"
            share = times[best] / times[plain]
            print(
                f"| {name} | {text} | {weights} | {how} | {1e3 * times[best]:.1f} | {share:.2f} |"
            )


if __name__ == "__main__":
    app.run(main)
