"""Attacks on the readers of files with bytes that a coverage-guided fuzzer chooses.

    python -m pip install 'gradflow-rnn[fuzz]'        # atheris, which has wheels for Linux
    ./run.sh faults --guided --minutes=14              # one process a reader, equal times

The fuzzer keeps the inputs that reach new lines of gradflow's code, and mutates those further. It
ends its process at the first input that goes wrong, or after its time.
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def available() -> bool:
    """Whether the fuzzer is installed."""
    return importlib.util.find_spec("atheris") is not None


def attack_all(names: list[str], *, minutes: float, seed: int) -> dict[str, tuple[int, str]]:
    """Attacks readers one after the other.

    Returns:
      For each reader how many inputs were tried, and what went wrong: nothing, or the end of the
      fuzzer's output, with the input in base 64.
    """
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            seconds = max(1, round(60 * minutes / len(names)))
            command = [sys.executable, __file__, name, folder, str(seconds), str(seed)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        tried = re.findall(r"^(?:Done|stat::number_of_executed_units:) ?(\d+)", done.stderr, re.M)
        wrong = done.stderr[-2000:] if done.returncode else ""
        found[name] = int(tried[-1]) if tried else 0, wrong
    return found


def _fuzz(name: str, folder: str, seconds: str, seed: str) -> None:
    """Attacks one reader; the fuzzer ends this process."""
    import atheris

    with atheris.instrument_imports(include=["gradflow"]):
        from loaders import LOADERS

    attack, corpus, place = LOADERS[name], Path(folder, "corpus"), Path(folder, "attack")
    corpus.mkdir()
    place.mkdir()
    (corpus / "example").write_bytes(attack.example)
    options = [f"-max_total_time={seconds}", f"-seed={int(seed) + 1}", "-print_final_stats=1"]
    options += [f"-artifact_prefix={folder}/", "-timeout=60", "-rss_limit_mb=8000", "-max_len=4096"]
    atheris.Setup([name, *options, str(corpus)], lambda data: attack.run(data, place))
    atheris.Fuzz()


if __name__ == "__main__":
    _fuzz(*sys.argv[1:])
