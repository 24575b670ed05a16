"""What the tests of the studies share: the definitions of a study, and the recipe of a run."""

import importlib
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax

FOLDER = Path(__file__).parents[1] / "experiments"


def load(name: str) -> SimpleNamespace:
    """The definitions of a study of one file; what studies share is beside it."""
    sys.path.insert(0, str(FOLDER))
    try:
        return SimpleNamespace(**runpy.run_path(str(FOLDER / f"{name}.py")))
    finally:
        sys.path.remove(str(FOLDER))


def load_part(name: str) -> ModuleType:
    """A module of a study that is a folder, such as ``char_lm.study``."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


def compiled_once() -> dict[str, str]:
    """The environment of a process that shares the compiled programs of the tests."""
    return {
        "JAX_COMPILATION_CACHE_DIR": os.environ["GRADFLOW_TEST_CACHE"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def one_run(config: Any, cell: Any, run: int, *, input_size: int | None = None) -> tuple[Any, Any]:
    """The parameters and the gaussian inputs of one run, by the recipe of all studies."""
    root = jax.random.key(config.seed)
    key = jax.random.split(root, config.num_seeds)[run]
    params = cell.init(jax.random.split(jax.random.fold_in(key, 0))[0])
    each = getattr(config, "num_sequences", 1)
    size = config.input_size if input_size is None else input_size
    k_inputs = jax.random.fold_in(jax.random.fold_in(root, 2**32 - 1), 0)
    inputs = jax.random.normal(k_inputs, (config.num_seeds * each, config.num_steps, size))
    return params, inputs[run * each : (run + 1) * each] if each > 1 else inputs[run]


def verdicts(claims: Any) -> dict[str, str]:
    """The verdict of each claim, by its id."""
    return {claim.id: claim.verdict for claim in claims}
