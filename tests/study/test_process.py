"""How a command ends: each test runs one, and looks at its exit code and its last line."""

import os
import signal
import subprocess
import sys
import time

import pytest

RESUMES = "The same command without --overwrite resumes.\n"


def start(code: str, **options) -> subprocess.Popen:
    """Starts a program in a process of its own, with tests of what it prints."""
    script = f"import sys, time\nfrom gradflow.study.process import run_process\n{code}"
    command = [sys.executable, "-c", f"{script}\nrun_process(program)"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, text=True, **pipes)


def test_it_exits_with_the_code_of_the_program():
    with start("def program():\n    return 3") as process:
        assert process.communicate() == ("", "")
    assert process.returncode == 3


@pytest.mark.parametrize("where", ["stdout", "stderr"])
def test_a_closed_pipe_ends_it_quietly(where):
    code = f"def program():\n    print('x\\n' * 10**6, file=sys.{where})\n    return 0"
    with start(code) as process:
        getattr(process, where).close()
        other = process.stderr if where == "stdout" else process.stdout
        assert other.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_an_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        with start("def program():\n    print('x')\n    return 0", stdout=full) as process:
            shown = process.stderr.read()
    assert process.returncode == 1
    assert shown == "error: [Errno 28] No space left on device\n"


# The second one computes without giving Python a chance to call a handler.
LOOP = "import jax; jax.jit(lambda: jax.lax.fori_loop(0, 2**40, lambda i, x: x * 0.9, 1.0))()"


@pytest.mark.parametrize("wait", ["time.sleep(60)", f"{LOOP}.block_until_ready()"])
@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGTERM, "Terminated"), (signal.SIGINT, "Interrupted")]
)
def test_a_signal_ends_it_at_once_with_one_line(wait, number, word):
    with start(f"def program():\n    print('begun', flush=True)\n    {wait}") as process:
        assert process.stdout.readline() == "begun\n"
        began = time.monotonic()
        process.send_signal(number)
        assert process.stderr.read() == f"{word}. {RESUMES}"
    assert process.returncode == 128 + number
    assert time.monotonic() - began < 10


def test_its_workers_end_with_it():
    code = (
        "import multiprocessing\n"
        "def program():\n"
        "    worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "    worker.start()\n    print('begun', flush=True)\n    worker.join()"
    )
    with start(code) as process:
        assert process.stdout.readline() == "begun\n"
        began = time.monotonic()
        process.terminate()
        process.stdout.read()  # ends once no process can write to it
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began < 30  # the worker would have slept for 60
