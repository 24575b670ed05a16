"""The page on how to add a cell: its code is run as it is printed."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from oracle import assert_step_matches

from gradflow import cells

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "add_a_cell.md").read_text(encoding="utf-8")
CELL, NOISE, CONTRACT = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder with the page's files, which are not left behind as modules."""
    (tmp_path / "mine.py").write_text(CELL, encoding="utf-8")
    (tmp_path / "test_mine.py").write_text(CONTRACT, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield tmp_path
    sys.modules.pop("mine", None)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_cell_computes_the_equation_on_the_page(mine):
    def reference(params, h, x):
        def a(gate, h):
            return params[gate]["W_x"] @ x + params[gate]["W_h"] @ h + params[gate]["b"]

        f = 1 / (1 + np.exp(-a("f", h)))
        return (1 - f) * h + f * np.tanh(a("g", f * h))

    assert_step_matches(load(mine / "mine.py").mgu(3, 4), reference, 3)


def test_the_noise_on_the_page_is_switched_off_without_a_key(mine):
    (mine / "mine.py").write_text(f"{CELL}\n\n{NOISE}", encoding="utf-8")
    cell = load(mine / "mine.py").noisy_mgu(3, 4, rate=0.5)
    params, inputs = cell.init(jax.random.key(0)), np.ones((50, 2, 3))
    same = cell.noise(None, params, inputs)
    assert same[0] is params and same[1] is inputs
    noisy = cell.noise(jax.random.key(1), params, inputs)[1]
    assert set(np.unique(noisy)) == {0.0, 2.0}


def test_the_cell_is_ten_lines():
    """What is written for a new cell: the factory, without its imports and empty lines."""
    factory = CELL[CELL.index("def mgu") :]
    assert len([line for line in factory.splitlines() if line.strip()]) <= 10


def test_the_tests_on_the_page_pass(mine):
    module = load(mine / "test_mine.py")
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_cell_runs_through_the_experiment_that_the_page_names(mine, monkeypatch):
    assert "python $GRADFLOW/experiments/vanishing.py --cell=mine.py:mgu\n" in PAGE
    monkeypatch.chdir(mine)
    monkeypatch.syspath_prepend(ROOT / "experiments")
    vanishing = load(ROOT / "experiments" / "vanishing.py")
    config = vanishing.Config(cell="mine.py:mgu", hidden_size=4, num_steps=10, num_seeds=1)
    norms = vanishing.run(config).log_norm
    assert norms.shape == (1, 1, 11) and np.isfinite(norms).all()
    runs, mgu = vanishing.runs, load(mine / "mine.py").mgu(config.input_size, 4)
    step = jax.jacobian(lambda h, p, x: mgu.step(p, h, x)[1])
    params = mgu.init(runs.cell_key(runs.keys(config)[0]))
    inputs = runs.inputs(config)[0]
    h, product = mgu.initial_carry(), np.eye(4)
    for x in inputs:
        product, h = step(h, params, x) @ product, mgu.step(params, h, x)[1]
    np.testing.assert_allclose(norms[0, 0, -1], np.log(np.linalg.norm(product, 2)), rtol=1e-8)


def test_a_cell_of_the_library_is_entered_by_its_import_alone():
    tree = ast.parse((ROOT / "gradflow" / "cells" / "__init__.py").read_text(encoding="utf-8"))
    imported = [
        n.name for node in tree.body if isinstance(node, ast.ImportFrom) for n in node.names
    ]
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert len(cells.CELLS) > 30 and "LSTMCarry" not in cells.CELLS
    for name, factory in cells.CELLS.items():
        assert getattr(cells, factory.__name__) is factory
        assert factory.__name__.removesuffix("_of") == name
        assert imported.count(factory.__name__) == 1 and factory.__name__ not in used


def test_the_page_names_what_is_there():
    assert "`CELLS`" in PAGE and (ROOT / "gradflow" / "cells" / "__init__.py").is_file()
    for name in re.findall(r"from (gradflow[\w.]*) import (\w+)", PAGE):
        assert hasattr(importlib.import_module(name[0]), name[1]), name
