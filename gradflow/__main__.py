"""The command ``gradflow``: diagnoses a network, and lists cells and measurements.

    gradflow diagnose MODEL [flags]     a page on the gradient flow of every recurrent layer
    gradflow cells                      the cells, with the first line of what each computes
    gradflow measurements               the measurements, with their equations

``gradflow diagnose --helpshort`` lists the flags.
"""

import sys
from collections.abc import Sequence

from gradflow.spec import check_name

COMMANDS = ("diagnose", "cells", "measurements")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      argv: Its arguments, without the program's name. If None, they are the process's own.

    Returns:
      The exit code: 0; 1 if the run is at fault; 2 if the command line is.
    """
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["help"]
    if name in ("help", "-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    try:
        check_name("command", name, COMMANDS)
    except ValueError as error:
        print("error:", error, file=sys.stderr)
        return 2
    return {"diagnose": _diagnose, "cells": _cells, "measurements": _measurements}[name](rest)


def _diagnose(argv: list[str]) -> int:
    from gradflow import study
    from gradflow.report.diagnose import EXPERIMENT

    return study.main(EXPERIMENT, with_model(argv))


def with_model(argv: Sequence[str]) -> list[str]:
    """Writes the first argument that is not a flag as ``--model``."""
    place = next((i for i, one in enumerate(argv) if not one.startswith("-")), None)
    if place is None:
        return list(argv)
    return [*argv[:place], f"--model={argv[place]}", *argv[place + 1 :]]


def _cells(argv: list[str]) -> int:
    from gradflow.cells import CELLS

    for name, factory in CELLS.items():
        print(f"{name:22} {(factory.__doc__ or '').strip().splitlines()[0]}")
    return 0


def _measurements(argv: list[str]) -> int:
    from gradflow.flow import CATALOGUE

    for name, entry in CATALOGUE.items():
        print(f"{name:24} {entry.equation}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
