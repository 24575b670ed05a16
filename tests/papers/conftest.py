"""The papers' files stand beside each other: they and their tests find each other by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "papers"))
