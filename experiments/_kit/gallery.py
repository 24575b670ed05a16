"""All studies and the pictures of the gallery, found by their files."""

import importlib
from functools import cache
from pathlib import Path

from gradflow import study

FOLDER = Path(__file__).parents[1]
ROOT = FOLDER.parent

SECTIONS = ("networks", "flow", "training", "sequences")
"""The sections of the tables, in their order."""


@cache
def studies() -> dict[str, study.Experiment]:
    """All studies by name, in the order of their sections and in the sections by their order.

    Raises:
      ValueError: If a study names no section.
    """
    files = [path.stem for path in FOLDER.glob("[a-z]*.py") if path.stem != "figures"]
    folders = [path.parent.name for path in FOLDER.glob("[a-z]*/__init__.py")]
    found = [importlib.import_module(name).EXPERIMENT for name in (*files, *folders)]
    for one in found:
        if one.section not in SECTIONS:
            raise ValueError(
                f"Expected the section of {one.name} to be one of {', '.join(SECTIONS)}, got "
                f"{one.section!r}. Set section in its Experiment."
            )
    found.sort(key=lambda one: (SECTIONS.index(one.section), one.order, one.name))
    return {one.name: one for one in found}


@cache
def gallery() -> dict[str, tuple[study.Experiment, study.Picture]]:
    """All pictures by the names of their files."""
    return {
        name: (one, picture) for one in studies().values() for name, picture in one.gallery.items()
    }
