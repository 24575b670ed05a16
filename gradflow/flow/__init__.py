"""The measurements of gradient flow, one file a measurement."""

from gradflow.flow.adjoint import adjoints, log_adjoint_norms
from gradflow.flow.broken import first_broken_step
from gradflow.flow.certificate import NormCertificate
from gradflow.flow.components import component_gradients, component_map, components
from gradflow.flow.cut_slopes import CutSlopes, cut_slopes
from gradflow.flow.decomposition import Decomposition, decomposition
from gradflow.flow.decomposition_norms import DecompositionNorms, decomposition_norms
from gradflow.flow.exact_slopes import exact_slopes
from gradflow.flow.gates import gate_histograms, gates, saturation
from gradflow.flow.in_chunks import in_chunks
from gradflow.flow.leading import leading_singular_values
from gradflow.flow.live_paths import log_live_paths
from gradflow.flow.lyapunov import LyapunovExponents, lyapunov_exponents
from gradflow.flow.norm_map import log_norm_map, norm_map_certificate
from gradflow.flow.norms import log_norms, norm_certificate
from gradflow.flow.paths import StepsByPath, steps_by_path
from gradflow.flow.spectrum import effective_rank, log_condition, log_singular_values
from gradflow.flow.summary import Summary, horizons, summary

__all__ = [
    "CutSlopes",
    "Decomposition",
    "DecompositionNorms",
    "LyapunovExponents",
    "NormCertificate",
    "StepsByPath",
    "Summary",
    "adjoints",
    "component_gradients",
    "component_map",
    "components",
    "cut_slopes",
    "decomposition",
    "decomposition_norms",
    "effective_rank",
    "exact_slopes",
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
    "norm_certificate",
    "norm_map_certificate",
    "saturation",
    "steps_by_path",
    "summary",
]
