"""The command ``gradflow``: diagnoses a network, sweeps a study, and lists what there is.

    gradflow diagnose MODEL [flags]     a page on the gradient flow of every recurrent layer
    gradflow sweep STUDY [flags]        a study with every combination of several values of flags
    gradflow cells                      the cells, with the first line of what each computes
    gradflow measurements               the measurements, with their equations

``gradflow diagnose --helpshort`` and ``gradflow sweep STUDY --helpshort`` list the flags.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from gradflow.spec import check_name
from gradflow.study.process import run_process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      argv: Its arguments, without the program's name. If None, they are the process's own.

    Returns:
      The exit code: 0; 1 if the run is at fault; 2 if the command line is.
    """
    if argv is None:
        run_process(partial(_run, sys.argv[1:]))
    return _run(argv)


def _run(argv: Sequence[str]) -> int:
    name, *rest = argv or ["help"]
    if name in ("help", "-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    try:
        check_name("command", name, COMMANDS)
    except ValueError as error:
        print("error:", error, file=sys.stderr)
        return 2
    return COMMANDS[name](rest)


def _diagnose(argv: Sequence[str]) -> int:
    from gradflow import study
    from gradflow.report.experiment import EXPERIMENT

    return study.main(EXPERIMENT, with_model(argv), program="gradflow diagnose")


def _sweep(argv: Sequence[str]) -> int:
    from gradflow.study.sweep.command import main

    return main(argv)


def with_model(argv: Sequence[str]) -> list[str]:
    """Writes the first argument that is not a flag as ``--model``."""
    place = next((i for i, one in enumerate(argv) if not one.startswith("-")), None)
    if place is None:
        return list(argv)
    return [*argv[:place], f"--model={argv[place]}", *argv[place + 1 :]]


def _cells(argv: Sequence[str]) -> int:
    from gradflow.cells import CELLS

    first_lines = {
        name: (cell.__doc__ or "").strip().splitlines()[0] for name, cell in CELLS.items()
    }
    return _list("cells", argv, first_lines)


def _measurements(argv: Sequence[str]) -> int:
    from gradflow.flow import CATALOGUE

    return _list("measurements", argv, {name: one.equation for name, one in CATALOGUE.items()})


def _list(command: str, argv: Sequence[str], lines: Mapping[str, str]) -> int:
    if argv:
        print(f"error: Expected gradflow {command} alone, got {argv[0]!r}.", file=sys.stderr)
        return 2
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:{width}}  {line}")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "diagnose": _diagnose,
    "sweep": _sweep,
    "cells": _cells,
    "measurements": _measurements,
}

if __name__ == "__main__":
    sys.exit(main())
