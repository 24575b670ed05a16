"""The study of language models of characters; `study` is its main file."""

from char_lm.study import EXPERIMENT

__all__ = ["EXPERIMENT"]
