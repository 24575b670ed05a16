"""Accuracy and speed on one accelerator, in sections that keep to a budget of time.

Each section is a process of its own, which prints its rows as it measures them, and is ended when
its time is used up; what it has measured by then is kept. On a CPU every section runs its smallest
size.

    python benchmarks/accelerator.py --out=accelerator.json --budget=480
    python benchmarks/accelerator.py --sections=exact,train

Sections: ``exact``, measurements and gradients against float64 on the CPU; ``train`` and ``long``,
forward and backward pass of mean(h²) by ours, Flax and PyTorch; ``flow``, `log_norms` against bare
matrix products; ``map``; ``sweep``, the exponents of many runs in one program; ``scan``, factors by
which the loop is unrolled; ``scan_plain`` and ``scan_graph``, the same without XLA's command
buffers and with the whole loop in one.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import accelerator_sections as sections
import jax
from absl import app, flags
from accelerator_sections import FULL, SMALLEST, Row, Sizes
from timing import print_head, print_row, set_up

_OUT = flags.DEFINE_string("out", None, "The JSON file that is written.")
_BUDGET = flags.DEFINE_float("budget", 480, "Seconds for all sections.", lower_bound=1)
_SECTIONS = flags.DEFINE_list("sections", None, "The sections to run; by default all.")
_WORKER = flags.DEFINE_string("worker", None, "Run this section; used by the script itself.")

GRAPHS = "--xla_gpu_enable_command_buffer="
KINDS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,WHILE"


class Section(NamedTuple):
    """One part of the benchmark.

    Attributes:
      run: Measures, and yields the rows.
      seconds: Its share of the default budget.
      x64: Whether JAX's x64 is on, without which nothing can be float64.
      flags: XLA's flags, for a GPU.
    """

    run: Callable[[Sizes], Iterator[Row]]
    seconds: float
    x64: bool = True
    flags: str = ""


SECTIONS = {
    "exact": Section(sections.exact, 70),
    "train": Section(sections.train, 140, x64=False),
    "long": Section(sections.long, 100, x64=False),
    "flow": Section(sections.flow_times, 50),
    "map": Section(sections.map_times, 25),
    "sweep": Section(sections.sweep, 20),
    "scan": Section(sections.scan, 30, x64=False),
    "scan_plain": Section(sections.scan, 25, x64=False, flags=GRAPHS),
    "scan_graph": Section(
        sections.scan, 25, x64=False, flags=f"{GRAPHS}{KINDS} --xla_gpu_graph_min_graph_size=1"
    ),
}


def work(name: str) -> None:
    """Runs a section, and prints the device and then each row as a line of JSON."""
    device = jax.devices()[0]
    described = {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
    print(json.dumps(described), flush=True)
    is_cpu = device.platform == "cpu"
    if is_cpu and SECTIONS[name].flags:
        print(json.dumps({"note": "only on a GPU"}))
        return
    for row in SECTIONS[name].run(SMALLEST if is_cpu else FULL):
        print(json.dumps(row), flush=True)


def collected(name: str, seconds: float) -> dict[str, Any]:
    """Runs a section in a process, for so many seconds at most, and returns what it printed."""
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    flags_of = f"{os.environ.get('XLA_FLAGS', '')} {SECTIONS[name].flags}".strip()
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, __file__, f"--worker={name}"],
        env=environment | ({"XLA_FLAGS": flags_of} if flags_of else {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    printed, errors = process.communicate()
    is_late, taken = not timer.is_alive(), time.monotonic() - start
    timer.cancel()
    lines = [json.loads(line) for line in printed.splitlines() if line.endswith("}")]
    rows = [line for line in lines[1:] if "note" not in line]
    found: dict[str, Any] = {"device": lines[0] if lines else {}, "rows": rows}
    found |= next((line for line in lines if "note" in line), {})
    if is_late:
        found["note"] = f"ended after its {seconds:.0f} s"
    elif process.returncode:
        found["note"] = "failed: " + (errors.strip().splitlines() or ["no message"])[-1]
    return found | {"seconds": round(taken, 1)}


def print_section(name: str, found: Mapping[str, Any]) -> None:
    """Prints a section as a Markdown table."""
    device = found["device"]
    print(f"\n`{name}` on {device.get('device', 'no device')}, {found['seconds']} s\n", flush=True)
    rows = found["rows"]
    if rows:
        titles = list(dict.fromkeys(title for row in rows for title in row))
        print_head(*titles)
        for row in rows:
            print_row(*(row.get(title, "") for title in titles))
    if "note" in found:
        print(f"\n{name}: {found['note']}.", flush=True)


def main(argv: Sequence[str]) -> None:
    """Runs the sections one after the other while there is time, and writes what they found."""
    if _WORKER.value:
        set_up(argv, x64=SECTIONS[_WORKER.value].x64)
        work(_WORKER.value)
        return
    set_up(argv)
    end, record = time.monotonic() + _BUDGET.value, {}
    for name in _SECTIONS.value or SECTIONS:
        left = end - time.monotonic()
        if left < 1:
            record[name] = {"device": {}, "rows": [], "seconds": 0, "note": "skipped: no time left"}
        else:
            share = SECTIONS[name].seconds / _BUDGET.default * _BUDGET.value
            record[name] = collected(name, min(left, share))
        print_section(name, record[name])
        if _OUT.value:
            Path(_OUT.value).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
