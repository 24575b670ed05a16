"""The measurements of gradient flow, one file a measurement; `catalogue` lists them all.

Arguments common to all measurements
------------------------------------
cell
  The cell.
params
  Its parameters, as `cell.init` returns them.
inputs
  x_1 ... x_T of one sequence, of shape (T, input); `jax.vmap` over more.
source
  The block of s_k by which is differentiated: ``"h"``, ``"carry"``, a field such as ``"c"`` or
  several, ``"C,n"``; the rest of s_k is held fixed. (∂h_T/∂h_k is 0 where no step reads h, as in
  most cells since 2023; `default_block` names the state that is read.)
target
  The block of s_T, or s_t, which is differentiated.
carry
  s_0; by default the cell's own.
lengths
  The number of real steps. A padded step copies the carry, so that its Jacobian is the identity.
mask
  True where a step is real; the general form of ``lengths``.
loss, losses
  For measurements of a loss: a scalar of the outputs h_1 ... h_T, or one number for each step.

The cell, the parameters and the inputs come first, in this order; all others are given by keyword.

The functions compute in the precision of their arguments, float32 where JAX's x64 is off, as it is
by default; `measure` computes in float64 whatever the settings. Products are computed in full
precision, also on accelerators. In float32 log norms, adjoints, components and exponents are within
1e-4 nats of float64, and singular values within 1e-3, where the trajectory is not chaotic.

Where the entries of a carry fall into blocks that do not influence each other (`structure`), each
block is measured by itself: the same numbers, for a fraction of the work. Exponents at a finite
number of steps depend on the frame that they start from, and there each block has its own.

Logarithms are natural, in nats. Derivatives are exact where a unit saturates (`exact_slopes`), and
NaN where they go through a carry that is not finite (`nonfinite`).
"""

from typing import Any

from gradflow.flow.adjoint import adjoints, log_adjoint_norms
from gradflow.flow.catalogue import CATALOGUE
from gradflow.flow.components import component_gradients, component_map, components
from gradflow.flow.cut_slopes import CutSlopes, cut_slopes
from gradflow.flow.datasets import measure
from gradflow.flow.gates import gate_histograms, gates, saturation
from gradflow.flow.in_chunks import in_chunks
from gradflow.flow.lstm import (
    Decomposition,
    DecompositionNorms,
    StepsByPath,
    decomposition,
    decomposition_norms,
    steps_by_path,
)
from gradflow.flow.lyapunov import LyapunovExponents, lyapunov_exponents
from gradflow.flow.measurement import Measurement, Variable
from gradflow.flow.nonfinite import first_nonfinite_step
from gradflow.flow.norm_map import log_norm_map, norm_map_certificate
from gradflow.flow.norms import log_norms, norm_certificate
from gradflow.flow.over_devices import over_devices
from gradflow.flow.spectrum import (
    effective_rank,
    leading_singular_values,
    log_singular_values,
)
from gradflow.flow.step_pattern import default_block
from gradflow.flow.structure import block_sizes
from gradflow.flow.summary import Summary, horizons, summary
from gradflow.numerics.certificate import NormCertificate

__all__ = [
    "CATALOGUE",
    "CutSlopes",
    "Decomposition",
    "DecompositionNorms",
    "LyapunovExponents",
    "Measurement",
    "NormCertificate",
    "StepsByPath",
    "Summary",
    "Variable",
    "adjoints",
    "block_sizes",
    "component_gradients",
    "component_map",
    "components",
    "cut_slopes",
    "decomposition",
    "decomposition_norms",
    "default_block",
    "effective_rank",
    "first_nonfinite_step",
    "gate_histograms",
    "gates",
    "horizons",
    "in_chunks",
    "leading_singular_values",
    "log_adjoint_norms",
    "log_norm_map",
    "log_norms",
    "log_singular_values",
    "lyapunov_exponents",
    "measure",
    "norm_certificate",
    "norm_map_certificate",
    "over_devices",
    "saturation",
    "steps_by_path",
    "summary",
]


def __getattr__(name: str) -> Any:
    """Returns the measurement of this name in the catalogue, which need not be imported above."""
    if name in CATALOGUE:
        return CATALOGUE[name].function
    raise AttributeError(f"module 'gradflow.flow' has no attribute {name!r}")
