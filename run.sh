#!/usr/bin/env bash
# Runs an experiment, the tests or the linters in an environment that it makes when there is none.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
venv="$root/.venv"
python="$venv/bin/python"
unfinished="$venv/.unfinished"  # there while the environment is made or changed

usage() {
  cat <<EOF
usage: ./run.sh <experiment> [flags]    runs it; --helpshort lists its flags, --quick takes seconds
       ./run.sh figures [--quick]       draws the gallery again
       ./run.sh tables                  generates the documentation's tables from the records
       ./run.sh docs [sphinx-build options]
                                        builds the documentation's site into docs/_build/html
       ./run.sh diagnose MODEL [flags]  diagnoses a trained network from its file
       ./run.sh sweep STUDY [flags]     runs it with every combination of several values of flags
       ./run.sh test [--slow] [--frameworks] [pytest arguments]
                                        --slow includes the tests of studies and those that take long, --frameworks
                                        installs the frameworks whose networks are read
       ./run.sh faults [--minutes=N] [--seed=S] [--only=KIND]   attacks everything at random
       ./run.sh lint
       ./run.sh setup                   makes the environment, in .venv, and installs the project
PYTHON=python3.12 ./run.sh setup makes it with that Python.
experiments: $(experiments)
EOF
}

experiments() {
  local found
  found="$(cd "$root/experiments" && {
    find . -maxdepth 1 -name '[a-z]*.py' ! -path ./figures.py
    find ./papers -name '[a-z]*.py'
    find . -mindepth 2 -maxdepth 2 -name __main__.py  # a study that is a folder
  } | sort)"
  found="${found//.\//}"
  found="${found//\/__main__/}"
  found="${found//.py/}"
  echo "${found//$'\n'/, }"
}

fail() {
  echo "error: $1" >&2
  exit "${2:-1}"
}

recent() {  # is this a Python that the project runs on?
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

choose_python() {
  local candidate candidates=(python3 python3.14 python3.13 python3.12 python3.11)
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if recent "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  candidate="${candidates[0]}"
  fail "Python 3.11 or newer is expected, $candidate is\
 $("$candidate" --version 2>/dev/null || echo "not there"); name one: PYTHON=/path/to/python ./run.sh"
}

healthy() {  # is the environment whole, and of the Python that is asked for, if one is?
  [[ ! -e $unfinished ]] && recent "$python" || return 1
  [[ -z ${PYTHON:-} || "$("$PYTHON" -VV 2>&1)" == "$("$python" -VV)" ]]
}

make_venv() {
  local base=">=3.11"
  if [[ -n ${PYTHON:-} ]] || ! command -v uv >/dev/null; then
    base="$(choose_python)"
  fi
  rm -rf -- "$venv"
  mkdir -- "$venv"
  touch -- "$unfinished"
  if command -v uv >/dev/null; then
    uv venv --quiet --allow-existing --python "$base" "$venv"
  else
    "$base" -m venv "$venv"
  fi
}

install_with() {  # the project with an extra, or with none
  local what="$root${1:+[$1]}"
  echo "installing $what in .venv" >&2
  touch -- "$unfinished"
  if command -v uv >/dev/null; then
    uv pip install --quiet --python "$python" --editable "$what"
  else
    "$python" -m pip install --quiet --disable-pip-version-check --editable "$what"
  fi
}

prepare() {  # makes what is missing, and costs nothing when nothing is
  local extra="$1" stamp="$venv/.installed${1:+-$1}" state
  if command -v flock >/dev/null; then  # two first runs must not make it over each other
    exec 9<"$root/run.sh"
    flock 9
  fi
  healthy || make_venv
  state="$root $(cksum <"$root/pyproject.toml")"
  if [[ -e $unfinished || ! -f $stamp || "$(<"$stamp")" != "$state" ]]; then
    if ! install_with "$extra"; then
      rm -- "$unfinished"  # it is whole, and only lacks packages
      fail "the installation failed; the same command tries again"
    fi
    echo "$state" | tee -- "$stamp" >"$venv/.installed"
    rm -- "$unfinished"
  fi
  exec 9<&-
}

run_tests() {
  prepare test
  local argument chosen=(-m "not slow") given=()
  # By file: the tests of a file share what is compiled, and what its fixtures compute.
  local workers=(-n auto --dist loadfile)
  for argument in "$@"; do
    case "$argument" in
      --slow)
        chosen=()
        continue
        ;;
      --frameworks)
        # Tests that need one are skipped, with the reason, where it cannot be installed.
        (prepare frameworks) || echo "testing without the other frameworks" >&2
        continue
        ;;
      -n* | --numprocesses* | no:xdist | -pno:xdist) workers=() ;;
    esac
    given+=("$argument")
  done
  cd -- "$root"
  # A "-m" among the given arguments comes last and so replaces the default one.
  exec "$python" -m pytest ${chosen[@]+"${chosen[@]}"} ${workers[@]+"${workers[@]}"} ${given[@]+"${given[@]}"}
}

run_faults() {
  prepare test
  cd -- "$root"
  exec "$python" tests/faults/harness.py "$@"
}

run_linters() {
  prepare dev
  cd -- "$root"
  "$python" -m ruff format --check
  "$python" -m ruff check
  "$python" -m pyright --pythonpath "$python"
}

build_docs() {
  prepare docs,torch  # two notebooks read a network of PyTorch
  cd -- "$root"
  # A warning is an error, and so is a reference that leads nowhere.
  "$python" -m sphinx -b html -W --keep-going -q "$@" docs docs/_build/html
  echo "$root/docs/_build/html/index.html"
}

run_experiment() {
  local name="$1" file="$root/experiments/$1.py" folder="$root/experiments/$1"
  shift
  [[ ! -f $folder/__main__.py ]] || file="$folder"
  [[ -e $file ]] || fail "unknown experiment '$name', the known ones are $(experiments)" 2
  prepare ""
  exec "$python" "$file" "$@"
}

case "${1:-}" in
  "" | -h | --help | help) usage ;;
  setup) prepare "" ;;
  test) run_tests "${@:2}" ;;
  faults) run_faults "${@:2}" ;;
  lint) run_linters ;;
  docs) build_docs "${@:2}" ;;
  sweep)
    prepare ""
    exec "$python" -m gradflow "$@"
    ;;
  figures | tables)
    [[ -f $root/experiments/figures.py ]] || fail "there is no experiments/figures.py" 2
    prepare ""
    cd -- "$root"
    [[ $1 != tables ]] || set -- figures --tables
    exec "$python" experiments/figures.py "${@:2}"
    ;;
  *) run_experiment "$@" ;;
esac
