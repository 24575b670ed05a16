"""Diagnoses the recurrent layers of a trained network: does the gradient arrive, and what helps.

For every recurrent layer and direction: norms of ∂h_T/∂h_k by lag and for pairs of steps, singular
values, Lyapunov exponents, eigenvalues of the step Jacobian, gates, states, and from which steps
the gradient of a loss comes; and for changes such as a larger forget bias, applied to a copy and
measured again, whether the gradient reaches further. The page report.html has all of it.

    gradflow diagnose model.safetensors
    gradflow diagnose model.keras --sample=batch.npz --loss=npy:gradient.npy
    gradflow diagnose checkpoint.pt --layer=encoder --inputs=text:PATH --num_steps=100
    gradflow diagnose demo

MODEL is a file of PyTorch, Keras, Flax, ONNX, safetensors or NumPy, or demo, an LSTM that forgets.

Takes about half a minute for a layer of 128 units on two cores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from gradflow import study
from gradflow.cells import lstm
from gradflow.interop import Layer, Net, load
from gradflow.report.drawing import draw_sections
from gradflow.report.losses import Batch
from gradflow.report.nets import diagnose_net
from gradflow.report.page import render
from gradflow.report.samples import (
    captured_batches,
    generated_batches,
    read_lengths,
    read_sample,
)
from gradflow.report.sections import arrives, is_repaired, rows, sections, whole

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

DEMO = "demo"


@dataclass(frozen=True)
class Config(study.Config):
    """What is diagnosed, on what."""

    num_seeds: int = study.field(1, help="Independent sets of input sequences.", positive=True)
    model: str = study.field("", help="The model's file or folder, or demo.")
    layer: str | None = study.field(
        None, help="Beginning of the names of the layers; all if empty."
    )
    convention: Literal["torch", "keras", "flax", "haiku"] | None = study.field(
        None, help="The framework whose layout the arrays have, where several fit."
    )
    activation: str | None = study.field(None, help="Of an RNN whose file does not have it: tanh.")
    model_config: str | None = study.field(None, help="File of the model's configuration.")
    inputs: str = study.field("gaussian", help="Inputs of layers that no other feeds.")
    sample: str | None = study.field(
        None, help="File (.npz, .npy) of the whole model's inputs, which is run on them."
    )
    lengths: str | None = study.field(
        None,
        help="Real steps of the sequences of the sample: one number, one each, or a .npy file.",
    )
    loss: str = study.field("last", help="last, mean, or npy:PATH with ∂L/∂outputs.")
    num_sequences: int | None = study.field(
        None,
        help="Sequences for each seed; if empty, 16, or all of a file with fewer.",
        positive=True,
    )
    num_steps: int = study.field(200, help="Steps of generated sequences.", positive=True)
    needed_lag: int | None = study.field(
        None, help="The lag that the task needs; the longest sequence's if empty.", positive=True
    )
    advice: bool = study.field(True, help="Whether changes are tried on copies and measured.")


def demo() -> Net:
    """Returns a net of one LSTM of 32 units whose forget gates are nearly shut."""
    cell = lstm(8, 32, forget_bias=-2.0)
    with jax.enable_x64(True):
        params = jax.tree.map(np.asarray, cell.init(jax.random.key(0)))
    layer = Layer("lstm", "lstm", 8, 32, params, "gradflow's own", note="made for this demo")
    return Net("gradflow", (layer,))


def run(config: Config, once: study.Once = study.call) -> "xarray.Dataset":
    """Measures every layer; the names of its variables and dimensions begin with layer0_ and so on.

    Raises:
      ValueError: If no model is named, or whatever loading and measuring raise.
    """
    if not config.model:
        raise ValueError(
            "Expected a model, got none. Name its file: gradflow diagnose model.safetensors, or "
            "gradflow diagnose demo."
        )
    net = demo() if config.model == DEMO else _load(config)
    return diagnose_net(
        net,
        _batches(config, net),
        loss=config.loss,
        needed_lag=config.needed_lag,
        advice=config.advice,
        once=once,
    )


def _load(config: Config) -> Net:
    try:
        return load(
            config.model,
            layer=config.layer,
            convention=config.convention,
            activation=config.activation,
            config=config.model_config,
        )
    except ModuleNotFoundError as error:  # says what to install
        raise ValueError(str(error)) from None


def _batches(config: Config, net: Net) -> dict[str, Batch]:
    if config.sample is not None:
        lengths = None if config.lengths is None else read_lengths(config.lengths)
        return captured_batches(net, read_sample(config.sample), lengths)
    if config.lengths is not None:
        raise ValueError("--lengths are those of a --sample, but there is none. Remove --lengths.")
    return generated(config, net)


def generated(config: Config, net: Net) -> dict[str, Batch]:
    """Makes the inputs that a configuration describes."""
    return generated_batches(
        net,
        config.inputs,
        seed=config.seed,
        num_sequences=config.num_sequences,
        num_steps=config.num_steps,
        num_seeds=config.num_seeds,
    )


def figure(dataset: "xarray.Dataset") -> "Figure":
    """Draws the most telling panels of every layer."""
    return draw_sections(sections(dataset))


def summary(dataset: "xarray.Dataset") -> str:
    """Writes a table of the layers, the summary of each, and what was left out."""
    lines = [study.table(rows(dataset))]
    lines += [f"{section.name}: {section.summary}" for section in sections(dataset)]
    left_out = np.atleast_1d(dataset.attrs["left_out"])
    return "\n".join([*lines, *(f"Not diagnosed: {one}." for one in left_out)])


def claims(dataset: "xarray.Dataset") -> list[study.Claim]:
    """Whether the gradient of every layer arrives, and whether a measured change lets it arrive."""
    found = [arrives(dataset)]
    return [*found, is_repaired(dataset)] if "layer0_change" in dataset else found


def documents(dataset: "xarray.Dataset", environment: Mapping[str, Any]) -> dict[str, bytes]:
    """Renders the page."""
    return {"report.html": render(whole(dataset, environment)).encode()}


EXPERIMENT = study.Experiment(
    name="diagnose",
    config=Config,
    run=run,
    figure=figure,
    summary=summary,
    claims=claims,
    documents=documents,
    section="networks",
    order=1,
    gallery={"diagnose": study.Picture(("--model=demo",))},
    quick={"model": DEMO, "num_steps": 20, "num_sequences": 2, "advice": False},
    doc=__doc__,
)
