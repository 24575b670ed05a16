"""Runs the study: python experiments/exploding."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the folder of the studies, which is imported from

from exploding import EXPERIMENT  # noqa: E402
from gradflow import study  # noqa: E402

if __name__ == "__main__":
    study.main(EXPERIMENT)
