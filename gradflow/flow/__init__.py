"""The measurements of gradient flow, one file a measurement."""

from gradflow.flow.adjoint import adjoints, log_adjoint_norms
from gradflow.flow.broken import first_broken_step
from gradflow.flow.components import component_gradients, component_map, components
from gradflow.flow.decomposition import Decomposition, decomposition
from gradflow.flow.decomposition_norms import DecompositionNorms, decomposition_norms
from gradflow.flow.estimate import Estimate, bootstrap, estimate
from gradflow.flow.gates import gate_histograms, gates, saturation
from gradflow.flow.in_chunks import in_chunks
from gradflow.flow.leading import leading_singular_values
from gradflow.flow.live_paths import log_live_paths
from gradflow.flow.lyapunov import LyapunovExponents, lyapunov_exponents
from gradflow.flow.norm_map import log_norm_map
from gradflow.flow.norms import log_norms
from gradflow.flow.paths import StepsByPath, steps_by_path
from gradflow.flow.runs import over_runs, shared_out, side_by_side
from gradflow.flow.spectrum import effective_rank, log_condition, log_singular_values
from gradflow.flow.summary import Summary, horizons, summary

__all__ = [
    "Decomposition",
    "DecompositionNorms",
    "Estimate",
    "LyapunovExponents",
    "StepsByPath",
    "Summary",
    "adjoints",
    "bootstrap",
    "component_gradients",
    "component_map",
    "components",
    "decomposition",
    "decomposition_norms",
    "effective_rank",
    "estimate",
    "first_broken_step",
    "gate_histograms",
    "gates",
    "horizons",
    "in_chunks",
    "leading_singular_values",
    "log_adjoint_norms",
    "log_condition",
    "log_live_paths",
    "log_norm_map",
    "log_norms",
    "log_singular_values",
    "lyapunov_exponents",
    "over_runs",
    "saturation",
    "shared_out",
    "side_by_side",
    "steps_by_path",
    "summary",
]
