"""Sweeps on Slurm: submitit's own code, with commands in place of Slurm's."""

import sys
from pathlib import Path

import pytest

from gradflow import study
from gradflow.study.sweep import slurm
from gradflow.study.sweep.command import main

pytestmark = pytest.mark.slow  # starts a process for each job

STUDY = Path(__file__).parent / "swept.py"

COMMANDS = {
    # It runs the jobs of an array in turn, and the last of the first runs out of memory.
    "sbatch": """
n=$(($(ls "$SLURM"/*.sh 2>/dev/null | wc -l) + 1)); cp "$1" "$SLURM/$n.sh"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
ids=$([ -z "$last" ] && echo "$n" || seq -f "${n}_%g" 0 "$last")
for id in $ids; do echo PENDING >"$SLURM/states/$id"; done
for id in $ids; do
  if [ "$id" = 1_2 ]; then echo OUT_OF_MEMORY >"$SLURM/states/$id"; continue; fi
  SLURM_JOB_ID=$id SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_JOB_NUM_NODES=1 \\
    SLURM_ARRAY_JOB_ID=${last:+$n} SLURM_ARRAY_TASK_ID=${last:+${id#*_}} bash "$SLURM/$n.sh"
  echo COMPLETED >"$SLURM/states/$id"
done >"$SLURM/printed" 2>&1 &
echo "Submitted batch job $n"
""",
    "srun": 'while [ "$1" != "$PYTHON" ]; do shift; done; exec "$@"\n',
    "sacct": """
echo "JobID|State|NodeList"
for file in "$SLURM"/states/*; do echo "${file##*/}|$(<"$file")|n"; done
""",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="the extra cluster is not installed")
    (tmp_path / "states").mkdir()
    for name, text in COMMANDS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("SLURM", str(tmp_path))
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setattr(slurm, "INTERVAL", 0.05)
    return tmp_path


def test_jobs_are_an_array_and_those_that_failed_are_submitted_again(cluster, capsys):
    argv = [str(STUDY), f"--place={cluster}", f"--workdir={cluster}/out", "--cell=rnn,lstm,gru"]
    argv += ["--launcher=slurm", "--slurm=time=7,partition='gpu'", "--jobs=2", "--fail_at=rnn-4"]
    assert main(argv) == 1
    shown = capsys.readouterr().out
    assert "rnn   failed  Expected rnn-4 to be smaller." in shown
    assert "lstm  done" in shown
    assert "gru   failed  Slurm reports the state OUT_OF_MEMORY." in shown
    script = (cluster / "1.sh").read_text()
    assert "--array=0-2%2" in script and "--partition=gpu" in script and "--time=7" in script
    (cluster / "fixed").touch()
    assert main(argv) == 0
    assert "--array=0-1%2" in (cluster / "2.sh").read_text()
    assert study.read_dataset(cluster / "out" / "result.nc").sizes["cell"] == 3
    assert main([*argv, "--status"]) == 0
    assert not (cluster / "3.sh").exists()


def test_an_option_that_sbatch_does_not_have_is_refused_before_anything_starts(cluster, capsys):
    argv = [str(STUDY), "--seed=0,1", f"--workdir={cluster}/out", "--launcher=slurm"]
    assert main([*argv, "--slurm=partitions='gpu'"]) == 1
    assert "Unavailable parameter(s): ['partitions']" in capsys.readouterr().err
    assert not (cluster / "out" / "sweep.json").exists()


def test_a_machine_without_slurm_is_refused(cluster, capsys):
    (cluster / "bin" / "srun").unlink()
    argv = [str(STUDY), "--seed=0,1", f"--workdir={cluster}/out", "--launcher=slurm"]
    assert main(argv) == 1
    assert "there is no command srun. Run it on a login node" in capsys.readouterr().err


def test_submitit_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    argv = [str(STUDY), "--seed=0,1", f"--workdir={tmp_path}/out", "--launcher=slurm"]
    assert main(argv) == 1
    assert "Run pip install 'gradflow-rnn[cluster]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
