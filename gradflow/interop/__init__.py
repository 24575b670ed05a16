"""Cells from other libraries as gradflow's, and gradflow's as theirs."""

from gradflow.interop.flax_cells import (
    LinenCell,
    NnxCell,
    as_linen,
    as_nnx,
    from_linen,
    from_nnx,
    nnx_params,
)

__all__ = ["LinenCell", "NnxCell", "as_linen", "as_nnx", "from_linen", "from_nnx", "nnx_params"]
