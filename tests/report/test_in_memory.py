import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradflow
from gradflow import flow, report

torch = pytest.importorskip("torch")


class Reader(torch.nn.Module):
    """An embedding before an RNN, with the batch first: inputs that only the model can make."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(7, 2)
        self.rnn = torch.nn.RNN(2, 3, batch_first=True)

    def forward(self, tokens):
        return self.rnn(self.embedding(tokens))[0]


TOKENS = np.random.default_rng(0).integers(0, 7, (2, 6))


def test_a_module_is_diagnosed_on_the_inputs_that_its_layers_get(tmp_path):
    model = Reader()
    found = report.diagnose(model, sample=TOKENS, lengths=[6, 4], folder=tmp_path, advice=False)
    assert "rnn" in (tmp_path / "report.html").read_text(encoding="utf-8")
    layer = gradflow.load(model)["rnn.l0"]
    embedded = model.embedding(torch.as_tensor(TOKENS)).detach().numpy()
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, layer.params)
        for n, length in enumerate((6, 4)):
            x = jnp.asarray(embedded[n, :length], float)
            norms = flow.log_norms(layer.cell, params, x)
            np.testing.assert_allclose(found.layer0_log_norm[n, : length + 1], norms, atol=1e-6)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'losses'"):
        report.diagnose(Reader(), losses="last")


def test_the_parts_of_the_package_need_no_import_of_their_own():
    code = "import gradflow; print(gradflow.report.diagnose.__name__, gradflow.flow.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "diagnose gradflow.flow\n", done.stderr
