"""Makes experiments/_kit importable from the papers too, as in ``from _kit import runs``."""

from pathlib import Path

# A module with a __path__ is a package: Python searches this folder for its submodules.
__path__ = [str(Path(__file__).parents[1] / "_kit")]
