"""The study of normalisation and noise; `study` is its main file."""

from normalisation.study import EXPERIMENT

__all__ = ["EXPERIMENT"]
