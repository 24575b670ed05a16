"""The study of forecasting; `study` is its main file."""

from forecasting.study import EXPERIMENT

__all__ = ["EXPERIMENT"]
