"""The benchmark of an accelerator, at its smallest sizes on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

pytestmark = pytest.mark.slow  # compiles the sections of a benchmark, and runs it as a process

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def sections():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import accelerator_sections

        yield accelerator_sections
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_exact_section_compares_with_float64(sections):
    rows = list(sections.exact(sections.SMALLEST._replace(cells=("rnn",))))
    assert [row["what"] for row in rows][:2] == ["log_norms", "log_norm_map"]
    for row in rows:
        assert float(row["float64"]) < 1e-9 < float(row["float32"]) < 1e-3, row


def test_the_timed_sections_have_a_row_for_each_point(sections):
    sizes = sections.SMALLEST._replace(cells=("rnn", "rnn"), repeats=1)
    found = {
        name: list(getattr(sections, name)(sizes)) for name in ("flow_times", "map_times", "sweep")
    }
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(found, 2)
    with jax.enable_x64(False):
        trained, scanned = list(sections.train(sizes)), list(sections.scan(sizes))
    assert [row["precision"] for row in trained[::2]] == list(sections.PRECISIONS)
    assert [row["method"] for row in scanned] == ["joined", "planned"]


def test_the_script_writes_what_its_processes_print(tmp_path):
    out = tmp_path / "found.json"
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), f"--out={out}"]
    subprocess.run([*command, "--sections=scan_graph,sweep"], check=True, capture_output=True)
    record = json.loads(out.read_text())
    assert record["scan_graph"]["note"] == "only on a GPU" and not record["scan_graph"]["rows"]
    assert record["sweep"]["device"]["platform"] == "cpu"
    assert len(record["sweep"]["rows"]) == 2 or "ended" in record["sweep"]["note"]
