"""Networks of other frameworks as cells, cells as modules of Flax, and parameters in files."""

from gradflow.interop.flax.cells import (
    LinenCell,
    NnxCell,
    as_linen,
    as_nnx,
    from_linen,
    from_nnx,
    nnx_params,
)
from gradflow.interop.loading import load
from gradflow.interop.net import Layer, Net
from gradflow.interop.weights import Description, read_description, read_params, save_params

__all__ = [
    "Description",
    "Layer",
    "LinenCell",
    "Net",
    "NnxCell",
    "as_linen",
    "as_nnx",
    "from_linen",
    "from_nnx",
    "load",
    "nnx_params",
    "read_description",
    "read_params",
    "save_params",
]
