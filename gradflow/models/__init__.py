"""Models over cells, which map a sequence or a vector to a sequence or a vector.

A model is a pair of pure functions over one `gradflow.Cell` or two. What is not recurrent is
Flax's: `Recurrent` makes a model an NNX layer, and `Classifier` is one put together of such.
"""

from gradflow.models.bidirectional import bidirectional, reverse
from gradflow.models.layers import Classifier, Recurrent
from gradflow.models.shapes import (
    Model,
    encoder_decoder,
    many_to_many,
    many_to_one,
    one_to_many,
)

__all__ = [
    "Classifier",
    "Model",
    "Recurrent",
    "bidirectional",
    "encoder_decoder",
    "many_to_many",
    "many_to_one",
    "one_to_many",
    "reverse",
]
