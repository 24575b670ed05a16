"""How a cell is found: by name, in a file, in a module; and what is said when it is not."""

import sys

import jax
import numpy as np
import pytest

from gradflow.cells import CELLS, resolve

MINE = """
from gradflow.cells import rnn

not_callable = 3
_hidden = rnn

def tanh_net(input_size, hidden_size, *, gain=1.0):
    return rnn(input_size, hidden_size, recurrent_init=f"identity(gain={gain})")

def anything(input_size, hidden_size, **options):
    return rnn(input_size, hidden_size, **options)
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def recurrent_gain(factory, **options):
    return float(factory(2, 3, **options).init(jax.random.key(0))["W_h"][0, 0])


def forget_bias(factory, **options):
    return float(factory(2, 3, **options).init(jax.random.key(0))["f"]["b"][0])


def test_every_name_gives_its_factory():
    assert {name: resolve(name).__wrapped__ for name in CELLS} == CELLS
    ours, theirs = (f(2, 4).init(jax.random.key(3)) for f in (resolve("gru"), CELLS["gru"]))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_options_are_defaults_that_a_call_can_change():
    factory = resolve("lstm(forget_bias=2.5)")
    assert factory.__name__ == "lstm(forget_bias=2.5)"
    assert (forget_bias(resolve("lstm")), forget_bias(factory)) == (1.0, 2.5)
    assert forget_bias(factory, forget_bias=-1.0) == -1.0


def test_a_cell_in_a_file(mine, monkeypatch):
    assert recurrent_gain(resolve(f"{mine}:tanh_net")) == 1.0
    assert recurrent_gain(resolve(f"{mine}:tanh_net(gain=0.5)")) == 0.5
    monkeypatch.chdir(mine.parent)
    assert recurrent_gain(resolve("mine.py:tanh_net(gain=0.25)")) == 0.25
    assert "mine" not in sys.modules  # two files of one name do not meet


def test_a_cell_in_a_module(mine, monkeypatch):
    monkeypatch.syspath_prepend(mine.parent)
    (mine.parent / "my_package").mkdir()
    (mine.parent / "my_package" / "cells_of_mine.py").write_text(MINE)
    assert recurrent_gain(resolve("my_package.cells_of_mine:tanh_net(gain=0.5)")) == 0.5
    assert forget_bias(resolve("gradflow.cells.lstm:lstm(forget_bias=0.5)")) == 0.5


def test_a_factory_that_takes_anything_is_given_everything(mine):
    factory = resolve(f"{mine}:anything(recurrent_init='identity(gain=0.125)')")
    assert recurrent_gain(factory) == 0.125


@pytest.mark.parametrize(
    "spec, message",
    [
        (
            "lsmt",
            r"Unknown cell 'lsmt'. Did you mean 'lstm'\? .*of your own is path/to/file.py:fact",
        ),
        (
            "lstm(forgetbias=2)",
            "Unknown option 'forgetbias' of cell 'lstm'. Did you mean 'forget_bias'",
        ),
        (
            "lstm(input_size=2)",
            "Unknown option 'input_size' of cell 'lstm'. .*Known: .*forget_bias",
        ),
        ("lstm(2)", "Expected options by keyword"),
        (
            "nowhere/mine.py:tanh_net",
            "file of a cell, got 'nowhere/mine.py', which does not exist. .*current directory",
        ),
        (
            "no_such_package.cells:f",
            "cell no_such_package.cells:f .* got 'no_such_package', which cannot be found. Check",
        ),
        ("gradflow.no_such:f", "cell gradflow.no_such:f .* got 'gradflow.no_such', .* Check"),
        (
            "gradflow.cells.lstm:gru",
            "factory in gradflow.cells.lstm, got 'gru'. .*LSTMCarry.*lstm",
        ),
    ],
)
def test_a_cell_that_cannot_be_found_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve(spec)


@pytest.mark.parametrize(
    "rest, message",
    [
        (
            "tanhnet",
            "in .*mine.py, got 'tanhnet'. Choose one of its callables: rnn, tanh_net, anything.$",
        ),
        ("not_callable", "factory in .*, got 'not_callable'. Choose one of its callables: "),
        ("tanh_net(bias=1)", r"Unknown option 'bias' of cell '.*mine.py:tanh_net'. Known: gain.$"),
    ],
)
def test_a_file_without_that_factory_or_option_is_refused(mine, rest, message):
    with pytest.raises(ValueError, match=message):
        resolve(f"{mine}:{rest}")


def test_options_of_a_factory_without_any_are_refused(tmp_path):
    path = tmp_path / "bare.py"
    path.write_text("def bare(input_size, hidden_size): ...")
    with pytest.raises(ValueError, match="Unknown option 'gain' of cell '.*'. Known: none."):
        resolve(f"{path}:bare(gain=1)")


@pytest.mark.parametrize(
    "spec",
    [
        "lstm",
        "stack(cells='lstm(forget_bias=2),gru')",
        "zoneout(cell='lstm', rate={'h': 0.1, 'c': 0.2})",  # a colon that names no file
        "stack(cells='gru,zoneout(cell=\\'lstm\\', rate={\\'h\\': 0.1, \\'c\\': 0.2})')",
    ],
)
def test_without_code_the_cells_of_the_package_are_found(spec):
    assert resolve(spec, allow_code=False)(2, 3).init is not None


@pytest.mark.parametrize(
    "spec",
    [
        "{path}:mine",
        "evil:mine",
        "stack(cells='lstm,{path}:mine')",
        "stack(cells='lstm,{path}\\x3amine')",
        "stack(cells='lstm,{path}\\N{{COLON}}mine')",
        "residual(cell='zoneout(cell=\\'{path}:mine\\')')",
        *(f"{name}(cell='{{path}}:mine')" for name in ("dropout", "feedback", "masked", "zoneout")),
    ],
)
def test_code_is_not_executed_where_it_is_not_allowed(tmp_path, monkeypatch, spec):
    path = tmp_path / "evil.py"
    path.write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n" + MINE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="Expected only cells of this package, .* by --cell"):
        resolve(spec.format(path=path), allow_code=False)(2, 3)
    assert not (tmp_path / "ran").exists()


def test_a_file_imports_its_neighbours_and_each_folder_has_its_own(tmp_path):
    for folder, gain in (("a", 0.5), ("b", 0.25)):
        (tmp_path / folder / "parts").mkdir(parents=True)
        (tmp_path / folder / "helper.py").write_text("from parts.gains import GAIN")
        (tmp_path / folder / "parts" / "gains.py").write_text(f"GAIN = {gain}")
        text = MINE.replace("gain=1.0", "gain=GAIN").replace("net", "net_of", 1)
        (tmp_path / folder / "mine.py").write_text("from helper import GAIN\n" + text)
    path, modules = sys.path.copy(), set(sys.modules)
    for _ in range(2):
        assert recurrent_gain(resolve(f"{tmp_path}/a/mine.py:tanh_net_of")) == 0.5
        assert recurrent_gain(resolve(f"{tmp_path}/b/mine.py:tanh_net_of")) == 0.25
    assert (sys.path, set(sys.modules)) == (path, modules)


FAULTY = """
import helper
def lazy(n, m):
    from helper import GAIN
    return gained(n, m, GAIN)
def gained(n, m, gain):
    from gradflow.cells import rnn
    return rnn(n, m, recurrent_init=f"identity(gain={gain})")
def missing(n, m):
    import nowhere_to_be_found
def looked_up(n, m):
    return {}[n]
def ended(n, m):
    raise SystemExit(3)
def refusing(n, m):
    raise TypeError("a gain is a number")
"""


def test_faults_of_a_factory_that_is_called_are_reported_with_their_line(tmp_path):
    (tmp_path / "helper.py").write_text("GAIN = 0.5")
    (tmp_path / "mine.py").write_text(FAULTY)
    assert recurrent_gain(resolve(f"{tmp_path}/mine.py:lazy")) == 0.5  # a neighbour, when called
    for name, message in {
        "missing": "got ModuleNotFoundError in line 10 of '.*mine.py': .* Install nowhere_",
        "looked_up": "got KeyError in line 12 of '.*mine.py': 2. Correct that line",
        "ended": "got SystemExit in line 14 of '.*mine.py': 3. Correct that line",
    }.items():
        with pytest.raises(
            ValueError, match=f"mine.py:{name} to be made without errors, {message}"
        ):
            resolve(f"{tmp_path}/mine.py:{name}")(2, 3)
    with pytest.raises(TypeError, match="^a gain is a number$"):
        resolve(f"{tmp_path}/mine.py:refusing")(2, 3)


def test_a_library_that_a_file_imports_first_stays_imported(tmp_path, monkeypatch):
    (tmp_path / "library.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.py").write_text("import library\n" + MINE)
    resolve(f"{tmp_path}/deep/mine.py:tanh_net")
    assert sys.modules.pop("library").__file__ == str(tmp_path / "library.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef f(:\n", "got SyntaxError in line 2 of '.*mine.py': invalid syntax. Correct"),
        (
            "\nimport no_such_name\n",
            "got ModuleNotFoundError in line 2 of .* Install no_such_name.$",
        ),
        ("import sys\nsys.exit(3)", "got SystemExit in line 2 of '.*mine.py': 3. Correct that"),
        ("def f():\n  1 / 0\n\nf()", "got ZeroDivisionError in line 2 of .*: division by zero."),
        ("import numpy\nnumpy.zeros('x')", "got TypeError in line 2 of '.*mine.py': "),
        ("import helper", "got RuntimeError in line 1 of '.*helper.py': two lines. Correct"),
        ("x = " + "(" * 1000, "got (Syntax|Memory)Error in "),
        ("\0", "got (Syntax|Value)Error in "),
    ],
)
def test_a_file_that_cannot_be_executed_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "helper.py").write_text("raise RuntimeError('two\\nlines')")
    path = sys.path.copy()
    with pytest.raises(ValueError, match=f"Expected the cell .*mine.py:f to be .*, {message}") as e:
        resolve(f"{tmp_path}/mine.py:f")
    assert len(str(e.value).splitlines()) == 1
    assert sys.path == path and "helper" not in sys.modules


@pytest.mark.parametrize("place", ["", ".relative", "a..b", "broken_module"])
def test_a_module_that_cannot_be_imported_is_refused_in_one_line(tmp_path, monkeypatch, place):
    (tmp_path / "broken_module.py").write_text("import json\njson.loads('{')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="^Expected (the cell|a name)") as error:
        resolve(f"{place}:f")
    assert len(str(error.value).splitlines()) == 1
