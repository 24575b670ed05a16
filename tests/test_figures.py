"""The command that draws the gallery leaves no process behind."""

import os
import signal
import subprocess
import sys

import pytest
from studies import FOLDER

SCRIPT = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor

if __name__ == "__main__":
    from figures import end_with_parent
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, initializer=end_with_parent)
    pool.submit(os.getpid).result()
    pool.submit(time.sleep, 600)
    print("working", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}
    command = [sys.executable, str(tmp_path / "script.py")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    process.send_signal(how)
    process.communicate(timeout=30)  # the pipe is closed when the last of them has ended
    assert process.returncode == -how
