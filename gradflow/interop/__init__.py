"""Conversion of cells from and to Flax, and parameters in files."""

from gradflow.interop.flax_cells import (
    LinenCell,
    NnxCell,
    as_linen,
    as_nnx,
    from_linen,
    from_nnx,
    nnx_params,
)
from gradflow.interop.weights import Description, read_description, read_params, save_params

__all__ = [
    "Description",
    "LinenCell",
    "NnxCell",
    "as_linen",
    "as_nnx",
    "from_linen",
    "from_nnx",
    "nnx_params",
    "read_description",
    "read_params",
    "save_params",
]
