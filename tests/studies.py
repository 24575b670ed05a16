"""What the tests of the studies share: the modules of a study, by their names."""

import importlib
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

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
