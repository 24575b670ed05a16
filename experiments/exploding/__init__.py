"""The study of exploding gradients; `study` is its main file."""

from exploding.study import EXPERIMENT

__all__ = ["EXPERIMENT"]
