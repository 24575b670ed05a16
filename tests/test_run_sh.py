"""run.sh against a Python that only says what it is asked to do: nothing is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = "bash cat cksum cp dirname env find flock mkdir rm sleep sort tee touch".split()

# It logs `<folder>: <arguments>`, makes environments that hold a copy of it, and fails on demand.
FAKE_PYTHON = r"""#!/usr/bin/env bash
log() { echo "${PWD##*/}: $*" >>"$FAKE_LOG"; }
case "$*" in
  -c*version_info*) [[ "${FAKE_VERSION:-3.12}" != 3.[0-9] ]] ;;
  --version | -VV) echo "Python ${FAKE_VERSION:-3.12} ${FAKE_BUILD:-}" ;;
  "-m venv "*)
    log "venv"
    mkdir -p "$3/bin"
    [[ "${FAKE_KILL:-}" != venv ]] || kill -9 $PPID
    cp "$FAKE_PYTHON" "$3/bin/python"
    ;;
  "-m pip install"*)
    all="$*"
    log "pip ${all##*/}"
    sleep "${FAKE_SLEEP:-0}"
    [[ "${FAKE_KILL:-}" != pip ]] || kill -9 $PPID
    [[ -z "${FAKE_PIP_FAILS:-}" ]]
    ;;
  *)
    log "$*"
    [[ -z "${FAKE_FAILS:-}" || "$*" != *"$FAKE_FAILS"* ]]
    ;;
esac
"""


class Checkout:
    """A copy of run.sh in a folder with a space, and a PATH with nothing but what it needs."""

    def __init__(self, folder: Path) -> None:
        self.root, self.tools = folder / "my project", folder / "tools"
        self.log, self.here = folder / "log.txt", folder / "user folder"
        for path in (
            self.root / "experiments" / "papers",
            self.root / ".ci",
            self.tools,
            self.here,
        ):
            path.mkdir(parents=True)
        for name in ("run.sh", ".ci/run", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("vanishing", "figures", "__init__", "papers/pascanu2013"):
            (self.root / "experiments" / f"{name}.py").touch()
        for name in ("char_lm/__main__", "char_lm/study", "_kit/probes"):
            (self.root / "experiments" / name).parent.mkdir(exist_ok=True)
            (self.root / "experiments" / f"{name}.py").touch()
        for name in TOOLS:
            if found := shutil.which(name):
                (self.tools / name).symlink_to(found)
        (self.tools / "python3").write_text(FAKE_PYTHON)
        (self.tools / "python3").chmod(0o755)
        self.environment = {
            "PATH": str(self.tools),
            "FAKE_LOG": str(self.log),
            "FAKE_PYTHON": str(self.tools / "python3"),
        }

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(self.root / script), *arguments],
            cwd=self.here,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        self.log.write_text("")
        with self.start(script, *arguments, **environment) as process:
            shown = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, *shown)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return self.call("run.sh", *arguments, **environment)

    @property
    def done(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    if not shutil.which("bash"):
        pytest.skip("run.sh is for bash, which is not there")
    return Checkout(tmp_path)


def test_without_arguments_it_shows_its_usage_and_the_experiments(checkout):
    shown = checkout.run()
    assert shown.returncode == 0
    assert shown.stdout.startswith("usage: ./run.sh <experiment> [flags]")
    assert shown.stdout.endswith("\nexperiments: char_lm, papers/pascanu2013, vanishing\n")
    assert checkout.done == []


def test_an_unknown_experiment_is_one_line_and_makes_nothing(checkout):
    shown = checkout.run("vanish", "--quick")
    assert shown.returncode == 2
    assert shown.stderr == (
        "error: unknown experiment 'vanish', the known ones are char_lm, papers/pascanu2013, "
        "vanishing\n"
    )
    assert checkout.done == [] and not (checkout.root / ".venv").exists()


def test_an_experiment_runs_in_the_users_folder_with_the_users_flags(checkout):
    shown = checkout.run("papers/pascanu2013", "--quick", "--workdir=my run", "--cells=a, b")
    assert shown.returncode == 0, shown.stderr
    file = checkout.root / "experiments" / "papers" / "pascanu2013.py"
    assert checkout.done == [
        "user folder: venv",
        "user folder: pip my project",
        f"user folder: {file} --quick --workdir=my run --cells=a, b",
    ]


def test_a_study_that_is_a_folder_runs_by_its_name(checkout):
    checkout.run("char_lm", "--quick")
    assert checkout.done[-1] == f"user folder: {checkout.root}/experiments/char_lm --quick"


def test_a_second_call_installs_nothing(checkout):
    checkout.run("vanishing")
    checkout.run("vanishing", "--seed=1")
    assert checkout.done == [
        f"user folder: {checkout.root}/experiments/vanishing.py --seed=1",
    ]


def test_each_extra_is_installed_once_and_again_when_pyproject_changes(checkout):
    checkout.run("test")
    assert checkout.done[:2] == ["user folder: venv", "user folder: pip my project[test]"]
    checkout.run("setup")
    assert checkout.done == []  # the project itself is there
    checkout.run("lint")
    assert checkout.done[0] == "user folder: pip my project[dev]"
    checkout.run("test")
    assert len(checkout.done) == 1
    with (checkout.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    checkout.run("setup")
    assert checkout.done == ["user folder: pip my project"]
    checkout.run("test")
    assert checkout.done[0] == "user folder: pip my project[test]"


def test_a_checkout_that_was_moved_is_installed_again(checkout):
    checkout.run("setup")
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    checkout.run("setup")
    assert checkout.done == ["user folder: pip moved"]


@pytest.mark.parametrize("moment", ["venv", "pip"])
def test_an_environment_that_was_killed_half_made_is_made_anew(checkout, moment):
    assert checkout.run("setup", FAKE_KILL=moment).returncode == -9
    (checkout.root / ".venv" / "half.txt").write_text("left over")
    assert checkout.run("setup").returncode == 0
    assert checkout.done == ["user folder: venv", "user folder: pip my project"]
    assert not (checkout.root / ".venv" / "half.txt").exists()
    checkout.run("setup")
    assert checkout.done == []


@pytest.mark.skipif(not shutil.which("flock"), reason="there is no flock to wait with")
def test_two_first_runs_at_once_make_one_environment(checkout):
    processes = [checkout.start("run.sh", "setup", FAKE_SLEEP="0.3") for _ in range(2)]
    assert [process.communicate() and process.returncode for process in processes] == [0, 0]
    assert checkout.done == ["user folder: venv", "user folder: pip my project"]


def test_an_environment_whose_python_is_gone_is_made_anew(checkout):
    checkout.run("setup")
    (checkout.root / ".venv" / "bin" / "python").unlink()
    checkout.run("setup")
    assert checkout.done == ["user folder: venv", "user folder: pip my project"]


def test_a_failed_installation_is_said_and_tried_again(checkout):
    shown = checkout.run("vanishing", FAKE_PIP_FAILS="1")
    assert shown.returncode == 1
    assert shown.stderr.endswith("error: the installation failed; the same command tries again\n")
    assert checkout.done == ["user folder: venv", "user folder: pip my project"]
    assert checkout.run("vanishing").returncode == 0
    assert checkout.done[0] == "user folder: pip my project"


def test_a_users_own_environment_is_used(checkout):
    checkout.run("setup")
    for path in (checkout.root / ".venv").glob(".installed*"):
        path.unlink()
    checkout.run("setup")
    assert checkout.done == ["user folder: pip my project"]


def test_an_old_python_is_refused(checkout):
    shown = checkout.run("setup", FAKE_VERSION="3.9")
    assert shown.returncode == 1
    assert shown.stderr == (
        "error: Python 3.11 or newer is expected, python3 is Python 3.9 ; "
        "name one: PYTHON=/path/to/python ./run.sh\n"
    )
    assert not (checkout.root / ".venv").exists()


def test_a_python_that_is_not_there_is_refused_and_the_environment_stays(checkout):
    checkout.run("setup")
    shown = checkout.run("setup", PYTHON="/no/such/python")
    assert shown.returncode == 1
    assert "is expected, /no/such/python is not there; name one" in shown.stderr
    checkout.run("setup")
    assert checkout.done == []


def test_another_python_makes_the_environment_anew(checkout):
    checkout.run("setup")
    named = checkout.here / "my python"
    named.write_text(FAKE_PYTHON.replace("FAKE_BUILD:-", "FAKE_BUILD:-other"))
    named.chmod(0o755)
    environment = {"PYTHON": str(named), "FAKE_PYTHON": str(named)}
    checkout.run("setup", **environment)
    assert checkout.done == ["user folder: venv", "user folder: pip my project"]
    checkout.run("setup", **environment)
    assert checkout.done == []


def test_uv_is_used_where_there_is_one(checkout):
    uv = checkout.tools / "uv"
    uv.write_text(
        '#!/usr/bin/env bash\necho "uv $*" >>"$FAKE_LOG"\n'
        '[[ $1 != venv ]] || { mkdir -p "${!#}/bin"; cp "$FAKE_PYTHON" "${!#}/bin/python"; }\n'
    )
    uv.chmod(0o755)
    assert checkout.run("lint").returncode == 0
    venv = checkout.root / ".venv"
    assert checkout.done[:2] == [
        f"uv venv --quiet --allow-existing --python >=3.11 {venv}",
        f"uv pip install --quiet --python {venv}/bin/python --editable {checkout.root}[dev]",
    ]


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ((), "-m not slow -n auto --dist loadfile"),
        (("--slow",), "-n auto --dist loadfile"),
        (("-k", "a and b"), "-m not slow -n auto --dist loadfile -k a and b"),
        (("-n0", "-x"), "-m not slow -n0 -x"),
        (("--slow", "-n", "2"), "-n 2"),
        (("--numprocesses=2",), "-m not slow --numprocesses=2"),
        (("-p", "no:xdist"), "-m not slow -p no:xdist"),
    ],
)
def test_fast_tests_run_on_all_cores_by_default(checkout, arguments, called):
    assert checkout.run("test", *arguments).returncode == 0
    assert checkout.done[-1] == f"my project: -m pytest {called}".rstrip()


def test_the_attacks_run_in_the_checkout_with_the_users_flags(checkout):
    assert checkout.run("faults", "--minutes=2", "--only=flags").returncode == 0
    assert checkout.done[1:] == [
        "user folder: pip my project[test]",
        "my project: tests/faults/harness.py --minutes=2 --only=flags",
    ]


def test_lint_runs_the_three_linters_and_stops_at_a_failure(checkout):
    assert checkout.run("lint").returncode == 0
    assert checkout.done[2:] == [
        "my project: -m ruff format --check",
        "my project: -m ruff check",
        f"my project: -m pyright --pythonpath {checkout.root}/.venv/bin/python",
    ]
    assert checkout.run("lint", FAKE_FAILS="ruff check").returncode == 1


def test_the_site_is_built_with_its_packages_and_warnings_are_errors(checkout):
    assert checkout.run("docs", "-j", "2").returncode == 0
    assert checkout.done[1] == "user folder: pip my project[docs,torch]"
    called = "-m sphinx -b html -W --keep-going -q -j 2 docs docs/_build/html"
    assert checkout.done[-1] == f"my project: {called}"
    assert checkout.run("docs", FAKE_FAILS="sphinx").returncode == 1


def test_the_gallery_is_drawn_in_the_checkout(checkout):
    assert checkout.run("figures", "--quick").returncode == 0
    assert checkout.done[-1] == "my project: experiments/figures.py --quick"
    assert checkout.run("tables").returncode == 0
    assert checkout.done[-1] == "my project: experiments/figures.py --tables"
    (checkout.root / "experiments" / "figures.py").unlink()
    shown = checkout.run("figures")
    assert shown.returncode == 2
    assert shown.stderr == "error: there is no experiments/figures.py\n"


def test_a_failing_experiment_passes_its_exit_code_on(checkout):
    assert checkout.run("vanishing", FAKE_FAILS="vanishing").returncode == 1


@pytest.mark.parametrize(("fails", "code"), [("", 0), ("ruff format", 1), ("pytest", 1)])
def test_continuous_integration_lints_and_tests_and_fails_with_either(checkout, fails, code):
    assert checkout.call(".ci/run", FAKE_FAILS=fails).returncode == code
    assert any("ruff format" in line for line in checkout.done)
    assert any("pytest -n auto" in line for line in checkout.done)


def test_the_scripts_can_be_executed():
    assert all(os.access(ROOT / name, os.X_OK) for name in ("run.sh", ".ci/run"))
