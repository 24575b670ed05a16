import resource
from dataclasses import dataclass

import pytest

from gradflow import study
from gradflow.study import memory
from gradflow.study.memory import advice, amount, check_memory, out_of_memory


@dataclass(frozen=True)
class Config(study.Config):
    num_steps: int = 100
    num_sequences: int = 3
    hidden_size: int = 4
    input_size: int = 0


@dataclass(frozen=True)
class Trained(study.Config):
    batch_size: int = 3


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory", lambda: 24 * 10**9)


@pytest.mark.parametrize(
    ("changed", "needed", "name"),
    [
        ({"num_steps": 2 * 10**9}, "384 GB", "num_steps=2000000000"),
        ({"num_steps": 2 * 10**9, "precision": "float32"}, "192 GB", "num_steps=2000000000"),
        ({"num_seeds": 2 * 10**9}, "4.8 TB", "num_seeds=2000000000"),
        ({"input_size": 10**8}, "1.92 TB", "input_size=100000000"),
        ({"hidden_size": 2 * 10**8}, "2.56 EB", "hidden_size=200000000"),
        ({"hidden_size": 2 * 10**9}, "128 GB", "hidden_size=2000000000"),
    ],
)
def test_a_run_is_refused_whose_arrays_cannot_be_held(changed, needed, name):
    message = f"^This run needs at least {needed} of memory, and this machine has 24 GB. Reduce --"
    with pytest.raises(ValueError, match=f"{message}{name}[.]$"):
        check_memory(Config(**changed))


def test_no_run_is_refused_that_could_work():
    check_memory(Config())
    check_memory(Config(hidden_size=10**6))  # a matrix of which is 8 TB, of a dense cell
    check_memory(Config(num_steps=10**9 // 8))  # 24 GB
    check_memory(study.Config())


def test_what_reports_a_failed_allocation_is_known():
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."))
    assert not out_of_memory(ValueError("Expected a number."))


def test_the_advice_names_the_sizes_of_the_study():
    assert advice(Config, MemoryError()) == (
        "This run needs more memory than this machine has, 24 GB (MemoryError). Reduce "
        "--num_seeds or --num_steps or --num_sequences or --hidden_size or --input_size."
    )
    assert advice(Trained, MemoryError("no")).endswith("(no). Reduce --num_seeds or --batch_size.")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (25.26e9, "25.3 GB"), (4e13, "40 TB"), (3e18, "3 EB")]
)
def test_amounts_are_written_with_three_digits(number, text):
    assert amount(number) == text


def test_the_memory_is_that_of_the_machine_within_its_limits(monkeypatch, tmp_path):
    monkeypatch.undo()  # the number of the fixture
    physical = memory.memory()
    assert physical > 0
    # A real limit would be one of this process, which may have as much memory already.
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10**8, 10**8))
    assert memory.memory() == min(physical, 10**8)
    for name, text in (("memory.max", "max"), ("memory.max", "5000000\n")):
        monkeypatch.setattr(memory, "_GROUPS", tmp_path)
        (tmp_path / name).write_text(text)
    assert memory.memory() == 5_000_000
