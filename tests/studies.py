"""What the tests of the studies share: the definitions of a study, by its name."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

FOLDER = Path(__file__).parents[1] / "experiments"


def load(name: str) -> SimpleNamespace:
    """The definitions of a study; what studies share is beside them."""
    sys.path.insert(0, str(FOLDER))
    try:
        return SimpleNamespace(**runpy.run_path(str(FOLDER / f"{name}.py")))
    finally:
        sys.path.remove(str(FOLDER))
