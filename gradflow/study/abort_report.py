"""A program that stands between a process's error output and the terminal, and shortens an abort.

JAX ends a process that cannot reach the others by aborting it, with a dump of C++ that fills a
screen. An aborted process cannot report anything, so that this program does it: it reads what
libraries write to file descriptor 2, and writes one line when that ends with a fatal error.

    python abort_report.py <pipe
"""

import re
import signal
import sys

LOST = (
    "Another process of this run has ended or cannot be reached. The same command, in every "
    "process and without --overwrite, resumes."
)

REASONS = {
    r"incarnation": "Expected a --process_id of its own for each process, got one twice. Give "
    "them the numbers from 0 to --num_processes - 1.",
    r"DEADLINE_EXCEEDED(.|\n)*RegisterTask": "Expected all processes to start within a minute, but "
    "process 0 cannot be reached, or others are missing. Start as many as --num_processes, with "
    "one --coordinator and the numbers from 0 on, and make sure that the port is not blocked.",
    r"Gloo|gloo|NCCL|coordination|heartbeat|Connection closed": LOST,
}
"""What has happened, by a pattern in the text of an error; the first one that is found counts."""

FATAL = "Python's error: "
"""What a process writes before an error that is to be reported as an abort is."""

_FATAL = re.compile(rf"^F\d{{4}} |Check failed|terminate called|{FATAL}", re.MULTILINE)


def reason(text: str) -> str | None:
    """Returns what has happened according to an error about other processes; else None."""
    return next((said for pattern, said in REASONS.items() if re.search(pattern, text)), None)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends after the process that it serves
    text = sys.stdin.buffer.read().decode(errors="replace")
    if fatal := _FATAL.search(text):
        line = text[fatal.start() :].partition("\n")[0]
        print("error:", reason(text) or f"JAX has aborted: {line}", file=sys.stderr)
