"""The study of encoder-decoders; `study` is its main file."""

from seq2seq.study import EXPERIMENT

__all__ = ["EXPERIMENT"]
