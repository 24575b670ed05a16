"""The study that a sweep runs: one of this checkout, or a file."""

import runpy
import sys
from pathlib import Path

from gradflow.paths import user_path
from gradflow.spec import check_name
from gradflow.study.experiment import Experiment
from gradflow.study.provenance import ROOT

_FORMS = ("[a-z]*.py", "papers/[a-z]*.py", "[a-z]*/__main__.py")


def find_study(name: str, folder: Path = ROOT / "experiments") -> Path:
    """Finds what Python runs as a study: a file, or a folder with a ``__main__.py``.

    Args:
      name: The study's name, such as ``vanishing``, or the path of a file that ends in ``.py``.
      folder: The studies of the checkout.

    Raises:
      ValueError: If there is no such study or file, or no folder of studies.
    """
    if name.endswith(".py"):
        if not (path := user_path(name)).is_file():
            raise ValueError(f"Expected the file of a study, but {name} does not exist. Create it.")
        return path.absolute()
    paths = [path for form in _FORMS for path in folder.glob(form)]
    places = [path.parent if path.name == "__main__.py" else path for path in paths]
    known = {path.relative_to(folder).with_suffix("").as_posix(): path for path in places}
    if not known:
        raise ValueError(
            f"Expected the studies of a checkout beside the package to find {name!r} in, got an "
            "installed package alone. Run the command in a checkout, or give the path of a study's "
            "file."
        )
    check_name("study", name, known)
    return known[name]


def load_study(path: Path) -> Experiment:
    """Loads the ``EXPERIMENT`` of a study.

    Raises:
      ValueError: If the file defines none.
    """
    if (
        str(path.parent) not in sys.path
    ):  # studies import what lies beside them, also while they run
        sys.path.insert(0, str(path.parent))
    found = runpy.run_path(str(path / "__init__.py" if path.is_dir() else path)).get("EXPERIMENT")
    if not isinstance(found, Experiment):
        raise ValueError(
            f"Expected EXPERIMENT = study.Experiment(...) in {path.name}, found none. Name another "
            "study."
        )
    return found
