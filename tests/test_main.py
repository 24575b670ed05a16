import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gradflow
from gradflow.__main__ import main, with_model
from gradflow.cells import CELLS
from gradflow.flow import CATALOGUE


@pytest.mark.parametrize(("command", "table"), [("cells", CELLS), ("measurements", CATALOGUE)])
def test_a_list_has_a_line_for_each(command, table, capsys):
    assert main([command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(table)
    assert all(len(line.split()) > 2 for line in lines)


def test_help_names_the_commands(capsys):
    assert main([]) == 0 == main(["--help"])
    assert "gradflow diagnose MODEL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["diagnos"], "Unknown command 'diagnos'. Did you mean 'diagnose'?"),
        (["cells", "lstm"], "Expected gradflow cells alone, got 'lstm'."),
        (["diagnose", "--modl=x"], "Unknown flag --modl. Did you mean --model?"),
        (["diagnose", "a", "b"], "Unexpected argument 'b'."),
    ],
)
def test_wrong_command_lines_end_with_one_line(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_model_is_the_first_argument_that_is_no_flag():
    assert with_model(["--seed=1", "net.onnx", "--layer=a"]) == [
        "--seed=1",
        "--model=net.onnx",
        "--layer=a",
    ]
    assert with_model(["--model=demo"]) == ["--model=demo"]


def test_a_reader_that_closes_early_is_not_an_error():
    command = [sys.executable, "-c", "from gradflow.__main__ import main; main()", "cells"]
    done = subprocess.run(
        f"{command[0]} -c '{command[2]}' cells | head -1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(next(iter(CELLS))) and not done.stderr


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert gradflow.__version__ == project["version"]
