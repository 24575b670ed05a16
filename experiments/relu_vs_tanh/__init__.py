"""The study of ReLU against tanh; `study` is its main file."""

from relu_vs_tanh.study import EXPERIMENT

__all__ = ["EXPERIMENT"]
