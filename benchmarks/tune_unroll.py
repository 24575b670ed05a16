"""The constants of `gradflow.unroll.methods`: each method of running a step, timed by its size.

float32, forward and backward of mean(h²), wall time on an idle machine, the smallest of a few runs
in turns. The fastest method is printed for each cell and shape: the plain scan, or the plan with
segments of so many steps. Each device has its share of a batch.

    python benchmarks/tune_unroll.py --cells=lstm,gru,rnn
    JAX_NUM_CPU_DEVICES=2 python benchmarks/tune_unroll.py
"""

import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from absl import app, flags
from passes import Shape, gradient, ready

from gradflow.unroll import methods

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
_SEGMENTS = flags.DEFINE_list("segments", ["8", "32", "128"], "Steps in a segment.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Runs of each, in turns.", lower_bound=1)


def run_of(name: str, shape: Shape, segment: int) -> Callable[[], Any]:
    """The compiled gradient of mean(h²) by a plan with such segments; 0 is the plain scan."""
    with mock.patch.object(methods, "SEGMENT", segment):
        return ready(*gradient(name, shape, "planned" if segment else "scan"))


def shortest(runs: dict[int, Callable[[], Any]]) -> dict[int, float]:
    """The smallest wall time of each in seconds."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(_REPEATS.value + 1):  # the first is slower and so never the smallest
        for segment, run in runs.items():
            start = time.perf_counter()
            run()
            best[segment] = min(best[segment], time.perf_counter() - start)
    return best


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    del argv
    print("| cell | shape | fastest | ms | of the plain scan's |\n" + "|---" * 5 + "|")
    segments = [0, *map(int, _SEGMENTS.value)]
    for name in _CELLS.value:
        for text in _SHAPES.value:
            shape = Shape.parse(text)
            times = shortest({segment: run_of(name, shape, segment) for segment in segments})
            best = min(segments, key=lambda segment: times[segment])
            how = f"plan, segments of {best}" if best else "scan"
            print(
                f"| {name} | {text} | {how} | {1e3 * times[best]:.1f} "
                f"| {times[best] / times[0]:.2f} |"
            )


if __name__ == "__main__":
    app.run(main)
