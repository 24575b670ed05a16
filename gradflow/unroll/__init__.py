"""Running a cell over time: step by step, by a plan made from its step, or all steps at once."""

from gradflow.unroll.fit import check_is_cell, check_step
from gradflow.unroll.inputs import (
    Lengths,
    Mask,
    check_inputs,
    check_sequence,
    mask_cell,
    start,
    valid_steps,
)
from gradflow.unroll.scan import Trajectory, unroll

__all__ = [
    "Lengths",
    "Mask",
    "Trajectory",
    "check_inputs",
    "check_is_cell",
    "check_sequence",
    "check_step",
    "mask_cell",
    "start",
    "unroll",
    "valid_steps",
]
