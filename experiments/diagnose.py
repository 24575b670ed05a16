"""Diagnoses the recurrent layers of a trained network; see `gradflow.report.experiment`.

python experiments/diagnose.py model.safetensors
"""

import sys

from gradflow import study
from gradflow.__main__ import with_model
from gradflow.report.experiment import EXPERIMENT

if __name__ == "__main__":
    sys.argv[1:] = with_model(sys.argv[1:])
    study.main(EXPERIMENT)
