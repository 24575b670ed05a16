"""The study of text classification; `study` is its main file."""

from classification.study import EXPERIMENT

__all__ = ["EXPERIMENT"]
