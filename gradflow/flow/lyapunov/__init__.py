"""Lyapunov exponents: the growth of a frame of directions, its mean, and the error of the mean."""

from gradflow.flow.lyapunov.exponents import LyapunovExponents, lyapunov_exponents

__all__ = ["LyapunovExponents", "lyapunov_exponents"]
