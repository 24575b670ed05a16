"""Log norms of an LSTM by careful PyTorch: batched reverse mode, and one batched matrix norm."""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from gradflow.cell import Params


def torch_log_norms(
    params: Params, inputs: jax.Array, times: Iterable[int], norm: str = "spectral"
) -> Callable[[], np.ndarray]:
    """Returns a run that computes log ‖∂h_t/∂h_k‖ for the given t and all k, with c_k held fixed.

    Each t takes one reverse pass, batched over the rows of ∂h_t, to all h_k at once.

    Returns:
      A function without arguments; its result has shape (T+1, T+1), [t, k], with NaN elsewhere.
    """
    import torch  # pyright: ignore[reportMissingImports]

    def joined(name: str) -> "torch.Tensor":
        return torch.tensor(np.concatenate([params[gate][name] for gate in "ifgo"]))

    W_x, W_h, b = (joined(name) for name in ("W_x", "W_h", "b"))
    drive = torch.tensor(np.asarray(inputs)) @ W_x.T + b
    size = W_h.shape[1]
    rows = torch.eye(size, dtype=W_h.dtype)

    def run() -> np.ndarray:
        h = [torch.zeros(size, dtype=W_h.dtype, requires_grad=True)]
        c = torch.zeros(size, dtype=W_h.dtype)
        for x in drive:
            i, f, g, o = (x + W_h @ h[-1]).chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h.append(torch.sigmoid(o) * torch.tanh(c))
        log_norms = np.full((len(h), len(h)), np.nan)
        for t in times:
            blocks = torch.autograd.grad(
                h[t], h[: t + 1], rows, is_grads_batched=True, retain_graph=True
            )
            order = 2 if norm == "spectral" else "fro"
            sizes = torch.linalg.matrix_norm(torch.stack(blocks), order)
            log_norms[t, : t + 1] = torch.log(sizes).numpy()
        return log_norms

    return run
