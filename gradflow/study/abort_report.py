"""A program that stands between a process's error output and the terminal, and shortens an abort.

JAX ends a process that has lost the others by aborting it, with a dump of C++ that fills a screen.
An aborted process cannot report anything, so that this program does it: it reads what libraries
write to file descriptor 2, and writes one line once that has ended with a fatal error.

    python abort_report.py MESSAGE <pipe
"""

import re
import signal
import sys
from collections.abc import Iterable

_FATAL = re.compile(r"^F\d{4} |Check failed|Fatal Python error|terminate called")
_TASK = re.compile(r"/task:(\d+)")


def report(lines: Iterable[str], message: str) -> str:
    """Returns the message about an abort, with the numbers of lost processes; else nothing."""
    text = list(lines)
    if not any(_FATAL.search(line) for line in text):
        return ""
    lost = sorted({int(number) for line in text for number in _TASK.findall(line)})
    who = f" (JAX names process {', '.join(map(str, lost))})" if lost else ""
    return f"error: {message.format(who=who)}\n"


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends after the process that it serves
    sys.stderr.write(report(sys.stdin, sys.argv[1]))
