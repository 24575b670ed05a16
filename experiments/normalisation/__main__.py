"""Runs the study: python experiments/normalisation."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the folder of the studies, which is imported from

from gradflow import study  # noqa: E402
from normalisation import EXPERIMENT  # noqa: E402

if __name__ == "__main__":
    study.main(EXPERIMENT)
