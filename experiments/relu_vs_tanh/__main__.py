"""Runs the study: python experiments/relu_vs_tanh."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the folder of the studies, which is imported from

from relu_vs_tanh.study import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
