"""The study of trainings; `study` is its main file."""

from training.study import EXPERIMENT

__all__ = ["EXPERIMENT"]
