"""A folder is used by one process at a time, and a process that was killed locks nothing."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gradflow.locks import LOCK, OWNER, locked

HOLD = """
import sys, time
from pathlib import Path
from gradflow.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen:
    """Starts a process that holds the lock on a folder until it is killed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_folder_is_refused_while_another_process_uses_it_and_not_after_its_death(tmp_path, how):
    process = hold(tmp_path / "run")
    try:
        message = rf"run to be free, but another run \(pid {process.pid}, since \d\d:\d\d:\d\d\) is"
        with pytest.raises(OSError, match=message + " using this folder. Wait until"):
            with locked(tmp_path / "run"):
                pytest.fail("it was let in")
    finally:
        process.send_signal(how)
        process.communicate()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {LOCK, OWNER}
    with locked(tmp_path / "run"):
        assert f"pid {os.getpid()}" in (tmp_path / "run" / OWNER).read_text()
    assert os.listdir(tmp_path / "run") == []


def test_two_uses_in_one_process_exclude_each_other(tmp_path):
    message = "this process is using this folder in a run that has not ended. Delete its iterator"
    with locked(tmp_path), pytest.raises(OSError, match=message), locked(tmp_path):
        pytest.fail("it was let in")
    with locked(tmp_path):
        pass


def test_a_folder_that_was_made_for_the_lock_goes_with_it_unless_it_was_written_to(tmp_path):
    with pytest.raises(RuntimeError, match="bad gain"), locked(tmp_path / "a" / "b"):
        raise RuntimeError("bad gain")
    assert os.listdir(tmp_path) == []
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").write_text("kept")
    assert os.listdir(tmp_path / "a" / "b") == ["file"]


def test_whoever_waits_comes_next(tmp_path):
    order: list[str] = []

    def wait() -> None:
        with locked(tmp_path, wait=True):
            order.append("second")

    with locked(tmp_path):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"] and os.listdir(tmp_path) == []


def test_many_who_come_and_go_are_never_in_at_once(tmp_path):
    """The file of the lock and its folder are removed and made again all the time."""
    inside, faults, folder = [], [], tmp_path / "run"

    def come_and_go() -> None:
        for _ in range(25):
            with locked(folder, wait=True):
                inside.append(1)
                faults.extend([len(inside)] * (len(inside) > 1))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not faults and os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(OSError, match=re.escape(f"{tmp_path}/file")),
        locked(tmp_path / "file" / "a"),
    ):
        pytest.fail("it was let in")
