"""The table of all measurements: what each computes, returns and needs.

Everything that treats measurements alike reads `CATALOGUE`: `measure`, `in_chunks`, the probes of a
training, the table in the documentation and the tests of every measurement. To add a measurement is
to write its file, its entry here, and its test.
"""

from gradflow.flow.adjoint import (
    adjoints,
    adjoints_along,
    log_adjoint_norms,
    log_adjoint_norms_along,
)
from gradflow.flow.components import (
    component_gradients,
    component_map,
    components,
    components_along,
)
from gradflow.flow.cut_slopes import cut_slopes
from gradflow.flow.gates import gates, gates_along, saturation
from gradflow.flow.input_norms import log_input_norms, log_input_norms_along
from gradflow.flow.lstm import decomposition, decomposition_norms, steps_by_path
from gradflow.flow.lyapunov.exponents import lyapunov_exponents, lyapunov_exponents_along
from gradflow.flow.measurement import Measurement, Variable, bounds, fields
from gradflow.flow.norm_map import log_norm_map, norm_map_certificate
from gradflow.flow.norms import log_norms, log_norms_along, norm_certificate
from gradflow.flow.spectrum import (
    effective_rank,
    leading_singular_values,
    log_singular_values,
    log_singular_values_along,
)

DIMENSIONS = {
    "lag": (0, "steps"),
    "at_lag": (0, "steps"),
    "input_lag": (0, "steps"),
    "later": (0, "steps"),
    "earlier": (0, "steps"),
    "step": (1, "steps"),
    "loss_step": (1, "steps"),
    "counted_step": (1, "steps"),
    "index": (1, "1"),
    "exponent": (1, "1"),
    "row": (1, "1"),
    "column": (1, "1"),
    "side": (0, "1"),
}
"""The first value and the unit of the coordinate of each dimension; side 0 is shut, 1 is open."""


_BOUNDS = "lower and upper bound of these norms, and the stage that decided"
_TERMS = "forget through_f through_i through_g"

CATALOGUE: dict[str, Measurement] = {
    "log_norms": Measurement(
        log_norms,
        "log ‖∂target_T/∂source_k‖, spectral or Frobenius",
        (Variable("log_norms", ("lag",)),),
        along=log_norms_along,
    ),
    "norm_certificate": Measurement(norm_certificate, _BOUNDS, bounds("norm", ("lag",))),
    "log_input_norms": Measurement(
        log_input_norms,
        "log ‖∂target_T/∂x_k‖, Frobenius, for the input x_k of each step",
        (Variable("log_input_norms", ("input_lag",)),),
        along=log_input_norms_along,
    ),
    "log_norm_map": Measurement(
        log_norm_map,
        "log ‖∂target_t/∂source_k‖ for every pair k ≤ t",
        (Variable("log_norm_map", ("later", "earlier")),),
        "map",
    ),
    "norm_map_certificate": Measurement(
        norm_map_certificate,
        _BOUNDS,
        bounds("norm_map", ("later", "earlier")),
        "map",
    ),
    "log_singular_values": Measurement(
        log_singular_values,
        "log σ_i(∂target_T/∂source_k), every one exactly",
        (Variable("log_singular_values", ("lag", "index")),),
        "curves",
        along=log_singular_values_along,
    ),
    "leading_singular_values": Measurement(
        leading_singular_values,
        "the same at a few lags; the error is about (256 + 8 lag + 4 n √lag) eps σ_1, NaN below it",
        (Variable("leading_singular_values", ("at_lag", "index")),),
        "curves",
        "lags",
    ),
    "effective_rank": Measurement(
        log_singular_values,
        "exp(-Σ p_i log p_i) with p_i = σ_i / Σ σ",
        (Variable("effective_rank", ("lag",), "1"),),
        read=effective_rank,
    ),
    "lyapunov_exponents": Measurement(
        lyapunov_exponents,
        "lim 1/t · log of the growth of volumes, by QR; running estimate, standard error",
        (
            Variable("lyapunov_exponents", ("exponent",), "nats per step"),
            Variable("lyapunov_running", ("counted_step", "exponent"), "nats per step"),
            Variable("lyapunov_standard_error", ("exponent",), "nats per step"),
        ),
        along=lyapunov_exponents_along,
    ),
    "adjoints": Measurement(
        adjoints,
        "∂L/∂s_k for every k",
        (Variable("adjoints", ("earlier", "carry_entry"), "loss", by_leaf=True),),
        "curves",
        "loss",
        along=adjoints_along,
    ),
    "log_adjoint_norms": Measurement(
        log_adjoint_norms,
        "log ‖∂L/∂source_k‖",
        (Variable("log_adjoint_norms", ("earlier",)),),
        needs="loss",
        along=log_adjoint_norms_along,
    ),
    "components": Measurement(
        components,
        "log ‖(∂L/∂s_k)(∂⁺s_k/∂θ)‖ for each parameter θ",
        (Variable("components", ("step", "parameter"), by_leaf=True),),
        "curves",
        "loss",
        along=components_along,
    ),
    "component_map": Measurement(
        component_map,
        "the same by the step t of the loss",
        (Variable("component_map", ("loss_step", "step", "parameter"), by_leaf=True),),
        "map",
        "losses",
    ),
    "component_gradients": Measurement(
        component_gradients,
        "the components themselves; they sum to `jax.grad`",
        (Variable("component_gradients", ("step", "parameter_entry"), "loss", by_leaf=True),),
        "matrices",
        "loss",
    ),
    "gates": Measurement(
        gates,
        "activations of the gates",
        (Variable("gates", ("step", "gate_unit"), "1", by_leaf=True),),
        "curves",
        "gates",
        along=gates_along,
    ),
    "saturation": Measurement(
        gates,
        "fraction of the units at which a gate is shut (below 0.1), or open (above 0.9)",
        (Variable("saturation", ("step", "side", "gate"), "1", by_leaf=True),),
        "curves",
        "gates",
        read=saturation,
    ),
    "decomposition": Measurement(
        decomposition,
        "∂c_t/∂c_{t-1} = diag(f) + through f + through i + through g",
        fields("decomposition", _TERMS, ("step", "row", "column"), "1"),
        "matrices",
        "lstm",
    ),
    "decomposition_norms": Measurement(
        decomposition_norms,
        "log norms of these terms, and of the products of them",
        fields("path", f"{_TERMS} total", ("step",))
        + fields("path", "product_forget product_total exact_total exact_block", ("lag",)),
        needs="lstm",
    ),
    "steps_by_path": Measurement(
        steps_by_path,
        "∂ log ‖dc_T/dc_k‖ / ∂ log α for a factor α on each path; they sum to the lag",
        fields("steps", f"{_TERMS} through_o", ("lag",), "steps"),
        needs="lstm",
    ),
    "cut_slopes": Measurement(
        cut_slopes,
        "number of slopes f'(z) of tanh, logistic, ... and of those that are 0 in a precision, "
        "not in truth",
        (
            Variable("slopes", ("step",), "1"),
            Variable("slopes_cut", ("step", "precision"), "1", by_leaf=True),
        ),
        "curves",
    ),
}
"""All measurements by name."""
