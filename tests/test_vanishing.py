"""The experiment's numbers, figure, resumption and every bad input that its user may give."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray
from studies import load, one_run, verdicts

from gradflow import flow, study
from gradflow.cell import param_shapes
from gradflow.cells import rnn
from gradflow.interop import save_params

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "vanishing.py"
EXPERIMENT = load("vanishing").EXPERIMENT
QUICK = ["--quick", "--num_seeds=2", "--hidden_size=4"]


def run(*flags, workdir):
    return study.main(EXPERIMENT, [*QUICK, *flags, f"--workdir={workdir}"])


def test_a_cell_whose_h_no_step_reads_is_measured_by_its_state(tmp_path, capsys):
    assert run("--cell=rnn,mamba", workdir=tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "No later step reads the h of mamba, so that ∂h_T/∂h_k is 0: its state is" in printed
    assert "mamba: ‖∂S_T/∂S_k‖ shrinks by a factor" in printed and "rnn: ‖∂h_T/∂h_k‖" in printed
    dataset = study.read_dataset(tmp_path / "out" / "result.nc")
    assert dataset.source.values.tolist() == dataset.target.values.tolist() == ["h", "S"]
    assert np.isfinite(dataset.log_norm).all()
    assert run("--cell=mamba", "--source=h", "--target=h", workdir=tmp_path / "h") == 0
    assert "exactly 0 from lag 1" in capsys.readouterr().out


def test_the_record_holds_what_the_library_measures(tmp_path):
    assert run("--cell=rnn", "--num_sequences=2", workdir=tmp_path / "out") == 0
    dataset = study.read_dataset(tmp_path / "out" / "result.nc")
    assert dict(dataset.log_norm.sizes) == {"cell": 1, "run": 4, "lag": 21}
    config = EXPERIMENT.resolve(
        {"num_seeds": 2, "hidden_size": 4, "num_sequences": 2, "input_size": 16}, quick=True
    )
    params, inputs = one_run(config, cell := rnn(16, 4), 1)
    expected = flow.log_norms(cell, params, inputs[1])
    np.testing.assert_allclose(dataset.log_norm[0, 3], expected, atol=1e-9)
    spectra = dataset.log_singular_value.sel(spectrum_lag=20)[0, 3]
    np.testing.assert_allclose(spectra[0], expected[20], atol=1e-9)


def test_the_same_command_gives_the_same_bits(tmp_path):
    for name in ("one", "two"):
        assert run("--cell=rnn,lstm", workdir=tmp_path / name) == 0
    for file in ("result.nc", "config.json"):
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert one == two


def test_gain_and_initialiser_reach_the_cell(tmp_path, capsys):
    flags = ["--cell=rnn(activation='identity')", "--init=orthogonal", "--gain=0.5"]
    assert run(*flags, workdir=tmp_path / "out") == 0
    log_norm = study.read_dataset(tmp_path / "out" / "result.nc").log_norm
    np.testing.assert_allclose(log_norm[0, 0], np.arange(21) * np.log(0.5), atol=1e-9)
    assert "0.5000" in capsys.readouterr().out


def test_a_framework_s_preset_reaches_the_cell(tmp_path):
    assert run("--cell=lstm", "--init=keras", workdir=tmp_path / "keras") == 0
    assert run("--cell=lstm", "--init=torch", workdir=tmp_path / "torch") == 0
    keras, torch = (study.read_dataset(tmp_path / n / "result.nc") for n in ("keras", "torch"))
    assert float(keras.log_norm.mean()) > float(torch.log_norm.mean()) + 1


def test_a_cut_gradient_is_said_and_drawn_as_a_gap(tmp_path, capsys):
    (tmp_path / "cut.py").write_text(
        "import jax, jax.numpy as jnp\n"
        "from gradflow import Cell\n"
        "def cut(input_size, hidden_size):\n"
        "    step = lambda p, h, x: (jnp.where(h[0] < 5, h + 1, jax.lax.stop_gradient(h)),) * 2\n"
        "    return Cell(lambda key: {'a': jnp.zeros(1)}, step, lambda: jnp.zeros(hidden_size))\n"
    )
    assert run(f"--cell={tmp_path}/cut.py:cut", workdir=tmp_path / "out") == 0
    assert "exactly 0 from lag 1" in capsys.readouterr().out
    drawn = EXPERIMENT.draw(study.read_dataset(tmp_path / "out" / "result.nc"))
    assert np.isnan(drawn.subfigs[0].axes[0].lines[0].get_ydata()[1:]).all()


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """The second cell kills its own process the first time that it is built."""
    (tmp_path / "mine.py").write_text(
        "import os, pathlib, signal\n"
        "from gradflow.cells import rnn\n"
        "here = pathlib.Path(__file__).parent\n"
        "def killer(input_size, hidden_size):\n"
        "    cell = rnn(input_size, hidden_size)\n"
        "    def step(*arguments):\n"
        "        if (here / 'armed').exists() and list(here.glob('out/parts/*')):\n"
        "            (here / 'armed').unlink()\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return cell.step(*arguments)\n"
        "    return cell._replace(step=step)\n"
    )
    (tmp_path / "armed").touch()
    command = [sys.executable, str(SCRIPT), *QUICK, "--cell=rnn,mine.py:killer", "--workdir=out"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    codes, parts = [], []
    for _ in range(2):
        codes.append(subprocess.run(command, cwd=tmp_path, env=environment).returncode)
        parts.append(len(list(tmp_path.glob("out/parts/*.nc"))))
    assert codes == [-signal.SIGKILL, 0]
    assert parts == [1, 0]
    assert '"reused_units": 1' in (tmp_path / "out" / "env.json").read_text()


@pytest.fixture
def trained(tmp_path):
    """Files of two nets that are unlike anything drawn: of 3 units and 5 inputs, and of 4 units."""
    rng = np.random.default_rng(0)
    files = {}
    for hidden_size in (3, 4):
        cell, path = rnn(5, hidden_size), tmp_path / f"{hidden_size}.safetensors"
        shapes = jax.eval_shape(cell.init, jax.random.key(0))
        params = jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape), shapes)
        save_params(path, params, cell="rnn", input_size=5, hidden_size=hidden_size)
        files[path] = cell, params
    return files


def test_trained_parameters_are_measured_as_they_are(tmp_path, trained, capsys):
    out = tmp_path / "out"
    flags = [f"--params={','.join(map(str, trained))}", "--num_seeds=2"]
    assert study.main(EXPERIMENT, ["--quick", *flags, f"--workdir={out}"]) == 0
    log_norm = study.read_dataset(out / "result.nc").log_norm
    assert list(log_norm.cell.values) == ["rnn #1", "rnn #2"]
    shown = capsys.readouterr().out
    assert "rnn #2" in shown
    assert "(intervals over the input sequences of one network)" in shown
    config = EXPERIMENT.resolve({"num_seeds": 2}, quick=True)
    for found, (cell, params) in zip(log_norm.values, trained.values(), strict=True):
        for number, run in enumerate(found):
            _, x = one_run(config, cell, number, input_size=5)
            np.testing.assert_allclose(run, flow.log_norms(cell, params, x), atol=1e-9)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--init=identity"], "--init applies only to newly initialised cells"),
        (["--gain=2"], "--gain applies only to newly initialised cells"),
        (
            ["--cell=lstm"],
            "Expected --cell to name the cells of --params, rnn, got lstm. Remove --cell.",
        ),
        (
            ["--inputs=adding"],
            r"Expected inputs .* trained on, \[5\], got 2 channels of --inputs=adding",
        ),
        (
            ["--params=none.safetensors"],
            "Expected a file with parameters of a cell at 'none.safetensors'",
        ),
    ],
)
def test_what_does_not_fit_trained_parameters_is_said(tmp_path, trained, capsys, flags, message):
    given = [f"--params={next(iter(trained))}", f"--workdir={tmp_path}/out", *flags]
    assert study.main(EXPERIMENT, ["--quick", *given]) == 1
    shown = capsys.readouterr().err
    assert re.search(message, shown) and len(shown.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_code_of_a_cell_in_a_file_of_parameters_is_executed_only_if_it_is_named(
    tmp_path, capsys
):
    code = "from pathlib import Path\nfrom gradflow.cells import rnn as mine\n"
    code += "Path(__file__).with_name('ran').touch()\n"
    (tmp_path / "mine.py").write_text(code)
    spec = f"{tmp_path}/mine.py:mine"
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1), param_shapes(rnn(5, 3)))
    save_params(tmp_path / "p", params, cell=spec, input_size=5, hidden_size=3)
    (tmp_path / "ran").unlink()  # written when the parameters were saved
    flags = ["--quick", f"--params={tmp_path}/p", f"--workdir={tmp_path}/out"]
    assert study.main(EXPERIMENT, flags) == 1
    assert "names code that would be executed. If you trust" in capsys.readouterr().err
    assert study.main(EXPERIMENT, [*flags, "--cell=lstm"]) == 1
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()
    assert study.main(EXPERIMENT, [*flags, f"--cell={spec}"]) == 0


def record_of(rates, curvature=0.0):
    """A record of cells whose norms change by these rates, with some noise between five seeds."""
    lag, noise = np.arange(41.0), 1e-3 * np.arange(-2, 3)
    curves = (np.asarray(rates)[:, None] + noise)[..., None] * lag + curvature * (lag - 20) ** 2
    names = [f"cell{i}" for i in range(len(rates))]
    return xarray.Dataset(
        {"log_norm": (("cell", "run", "lag"), curves)},
        coords={
            "cell": names,
            "lag": lag,
            **{end: ("cell", ["h"] * len(names)) for end in ("source", "target")},
            "reads_h": ("cell", [True] * len(names)),
        },
        attrs={"num_networks": 5},
    )


def test_the_claims_are_decided_by_the_curves():
    found = EXPERIMENT.claims(record_of([-0.5, 0.1]))
    assert verdicts(found) == {"exponential": "supported", "rate-by-cell": "supported"}
    assert found[1].measured[0].value == pytest.approx(np.exp(-0.5), abs=1e-3)
    assert verdicts(EXPERIMENT.claims(record_of([-0.5, -0.5])))["rate-by-cell"] == "inconclusive"
    curved = EXPERIMENT.claims(record_of([-0.01], curvature=0.1))
    assert verdicts(curved) == {"exponential": "not supported"}


def test_the_summary_can_be_quoted():
    summary = EXPERIMENT.summary(record_of([-0.5, 0.1]))
    assert (
        "cell0: ‖∂h_T/∂h_k‖ shrinks by a factor 0.607 per step; below 1e-3 after 14 steps. Over "
        "40 steps it falls to 2.1e-09, below 1/10 (vanishing)." in summary
    )
    assert (
        "cell1: ‖∂h_T/∂h_k‖ grows by a factor 1.105 per step; above 1e-3 over all 40 steps. Over "
        "40 steps it grows to 55, above 10 (exploding)." in summary
    )


def test_the_regime_is_about_the_lag_that_is_needed(tmp_path, capsys):
    flags = ["--cell=lstm", "--source=c", "--needed_lag=3"]
    assert run(*flags, workdir=tmp_path) == 0
    printed = capsys.readouterr().out
    assert "over 3 steps" in printed and "stable (between 1/10 and 10)" in printed
    assert "exactly 0" not in printed  # at lag 0 the block of c and h is zero by definition
    assert study.read_dataset(tmp_path / "result.nc").attrs["needed_lag"] == 3
    far = record_of([-0.01]).assign_attrs(needed_lag=1000)
    assert "falls to 4.5e-05, below 1/10" in EXPERIMENT.summary(far)


def test_a_record_says_which_axis_of_an_array_was_read_as_what(tmp_path, capsys):
    flags = [f"--inputs=npy:{npy(tmp_path / 'x.npy', np.ones((3, 25, 2)))}", "--cell=rnn"]
    assert run(*flags, workdir=tmp_path / "out") == 0
    expected = "(N, T, input) = (3, 25, 2)"
    assert f"The inputs were read as {expected}." in capsys.readouterr().out
    assert study.read_dataset(tmp_path / "out" / "result.nc").attrs["inputs_read_as"] == expected


def test_a_cell_of_ones_own_is_checked_at_the_sizes_of_the_run(tmp_path, capsys):
    (tmp_path / "odd.py").write_text(
        "import jax.numpy as jnp\n"
        "from gradflow import Cell\n"
        "def odd(input_size, hidden_size):\n"
        "    wrong = hidden_size != 6 or input_size != 2\n"
        "    step = lambda p, h, x: (h[:1] if wrong else p * h,) * 2\n"
        "    return Cell(lambda key: jnp.ones(hidden_size), step, lambda: jnp.zeros(hidden_size))\n"
    )
    flags = [f"--cell=rnn,{tmp_path}/odd.py:odd", "--input_size=2"]
    assert run(*flags, "--hidden_size=6", workdir=tmp_path / "fits") == 0
    assert run(*flags, "--hidden_size=5", workdir=tmp_path / "does_not") == 1
    assert "Clause 'carry': expected a new carry like" in capsys.readouterr().err
    assert not (tmp_path / "does_not").exists()


def npy(path, array, **kwargs):
    np.save(path, array, **kwargs)
    return path


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cell=lsmt"], "Unknown cell 'lsmt'. Did you mean 'lstm'?"),
        (["--cell="], "Expected the name of a cell, got ''"),
        (["--cell=none.py:f"], "'none.py', which does not exist"),
        (["--cell=bad.py:missing"], "name of a factory in bad.py, got 'missing'"),
        (["--cell=bad.py:broken"], "Clause 'carry'"),
        (["--cell=lstm(peephol=True)"], "Unknown option 'peephol' of cell 'lstm'"),
        (["--inputs=text:none.txt"], "none.txt"),
        (["--inputs=text:empty.txt"], "empty"),
        (["--inputs=text:binary.txt"], "UTF-8"),
        (["--inputs=series:data.csv:price"], "price"),
        (["--inputs=series:data.csv:word"], "row 2"),
        (["--inputs=npy:nan.npy"], "NaN|nan"),
        (["--inputs=npy:object.npy"], "got object. Save one array of numbers"),
        (["--inputs=digits", "--num_steps=65"], "64"),
        (["--hidden_size=0"], "hidden_size"),
        (["--num_steps=-1"], "num_steps"),
        (["--init=torch", "--gain=2"], "got it with the framework 'torch'"),
        (["--init=orthgonal"], "orthogonal"),
        (["--source=z"], "got 'z'"),
        (["--norm=nuclear"], "nuclear"),
        (["--workdir=file.txt/out"], "file.txt"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    Path("bad.py").write_text(
        "import jax.numpy as jnp\n"
        "from gradflow import Cell\n"
        "def broken(input_size, hidden_size):\n"
        "    step = lambda p, h, x: (jnp.zeros(7), jnp.zeros(7))\n"
        "    return Cell(lambda key: jnp.zeros(1), step, lambda: jnp.zeros(hidden_size))\n"
    )
    Path("empty.txt").touch()
    Path("file.txt").write_text("a file")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00\x01" * 100)
    Path("data.csv").write_text("day,word,value\n" + "1,one,2.5\n2,two,3.5\n" * 40)
    npy("nan.npy", np.full((30, 2), np.nan))
    npy("object.npy", np.array([{}], dtype=object), allow_pickle=True)
    workdir = [] if any("workdir" in flag for flag in flags) else ["--workdir=out"]
    code = study.main(EXPERIMENT, ["--quick", *workdir, *flags])
    captured = capsys.readouterr()
    assert code in (1, 2)
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err

    assert re.search(message, captured.err)
    assert not Path("out").exists()


def test_a_finished_run_is_not_run_again(tmp_path, capsys):
    assert run(workdir=tmp_path / "out") == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert run(workdir=tmp_path / "out") == 0
    assert "is finished. --overwrite runs it again." in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
