import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradflow.cells import resolve
from gradflow.interop import Layer, Net
from gradflow.report.losses import Batch, output_gradients


def layer(name: str, input_size: int, hidden_size: int = 3, **options) -> Layer:
    key = jax.random.key(input_size)
    with jax.enable_x64(True):
        params = resolve("rnn")(input_size, hidden_size).init(key)
    params = jax.tree.map(np.asarray, params)
    return Layer(name, "rnn", input_size, hidden_size, params, "the test's own", **options)


TWO = Net(
    "test",
    (
        layer("low", 2),
        layer("low_reverse", 2, direction="reverse"),
        layer("top", 6, fed_by=("low", "low_reverse")),
    ),
)
X = np.random.default_rng(0).normal(size=(2, 5, 2))
LENGTHS = np.asarray([5, 3])


def batches() -> dict[str, Batch]:
    outputs = [TWO["low"].run(X), TWO["low_reverse"].run(X)]
    given = {"low": X, "low_reverse": X, "top": np.concatenate(outputs, axis=-1)}
    return {name: Batch(x, LENGTHS) for name, x in given.items()}


def expected(loss) -> dict[str, np.ndarray]:
    """By automatic differentiation with respect to something added to the outputs of each layer."""

    def whole(added: dict[str, jax.Array]) -> jax.Array:
        low = [TWO[name].apply(jnp.asarray(X)) + added[name] for name in ("low", "low_reverse")]
        return loss(TWO["top"].apply(jnp.concatenate(low, axis=-1)) + added["top"])

    with jax.enable_x64(True):
        zeros = {one.name: jnp.zeros((2, 5, 3)) for one in TWO.layers}
        return jax.tree.map(np.asarray, jax.grad(whole)(zeros))


def close(found, wanted) -> None:
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-13, err_msg=name)


def test_the_last_output_is_pulled_back_through_the_layers_above():
    def loss(outputs):
        return sum(0.5 * jnp.sum(outputs[n, length - 1] ** 2) for n, length in enumerate(LENGTHS))

    close(output_gradients(TWO, batches(), "last"), expected(loss))


def test_the_mean_counts_real_steps_alone():
    def loss(outputs):
        each = [0.5 * jnp.sum(outputs[n, :k] ** 2) / k for n, k in enumerate(LENGTHS)]
        return sum(each)

    close(output_gradients(TWO, batches(), "mean"), expected(loss))


def test_the_last_step_of_a_layer_in_reverse_is_the_first_of_the_model():
    net = Net("test", (TWO["low_reverse"],))
    found = output_gradients(net, {"low_reverse": Batch(X, LENGTHS)}, "last")["low_reverse"]
    assert found[:, 0].any() and not found[:, 1:].any()


@pytest.mark.parametrize("loss", ["last", "mean"])
def test_what_stands_in_the_padding_of_a_layer_in_reverse_changes_nothing(loss):
    """Its first steps are the last real ones of each sequence, and padding comes after them."""
    low, top = layer("low", 2), layer("top", 3, direction="reverse", fed_by=("low",))
    net, lengths = Net("none", (low, top)), np.array([6, 4])
    inputs = np.random.default_rng(0).normal(size=(2, 6, 2))
    noise = 9.0 * (np.arange(6) >= lengths[:, None])[..., None]

    def gradients(x, lengths):
        fed = {"low": Batch(x, lengths), "top": Batch(low.run(x), lengths)}
        return output_gradients(net, fed, loss)

    padded, other = gradients(inputs, lengths), gradients(inputs + noise, lengths)
    alone = gradients(inputs[1:, :4], lengths[1:])
    for name in ("low", "top"):
        np.testing.assert_allclose(padded[name][1, :4], alone[name][0], rtol=1e-12, atol=1e-15)
        assert not padded[name][1, 4:].any()
        np.testing.assert_allclose(other[name], padded[name], rtol=1e-12, atol=1e-15)


def test_a_gradient_from_a_file_is_pulled_back_too(tmp_path):
    weights = np.random.default_rng(1).normal(size=(2, 5, 3))
    np.save(tmp_path / "g.npy", weights)
    found = output_gradients(TWO, batches(), f"npy:{tmp_path / 'g.npy'}")
    close(found, expected(lambda outputs: jnp.sum(outputs * weights)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 5, 4)), r"of shape \(2, 5, 3\) or \(5, 3\).*got shape \(2, 5, 4\)"),
        (np.full((5, 3), np.nan), "Expected finite numbers of shape"),
    ],
)
def test_a_gradient_that_does_not_fit_is_refused(array, message, tmp_path):
    np.save(tmp_path / "g.npy", array)
    with pytest.raises(ValueError, match=message):
        output_gradients(TWO, batches(), f"npy:{tmp_path / 'g.npy'}")


def test_a_file_that_is_no_array_is_refused(tmp_path):
    (tmp_path / "g.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="Expected an array in .*numpy.save"):
        output_gradients(TWO, batches(), f"npy:{tmp_path / 'g.npy'}")


def test_unknown_losses_are_refused():
    with pytest.raises(ValueError, match="Unknown loss 'first'.*npy:PATH"):
        output_gradients(TWO, batches(), "first")
