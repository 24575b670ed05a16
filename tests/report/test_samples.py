import dataclasses

import jax
import numpy as np
import pytest

from gradflow.cells import resolve
from gradflow.interop import Layer, Net
from gradflow.interop.net import Captured
from gradflow.report.samples import (
    captured_batches,
    generated_batches,
    read_lengths,
    read_sample,
)


def layer(name: str, input_size: int, **options) -> Layer:
    params = resolve("rnn")(input_size, 3).init(jax.random.key(0))
    return Layer(name, "rnn", input_size, 3, params, "the test's own", **options)


NET = Net("test", (layer("a", 2), layer("b", 3, fed_by=("a",))))
ASKED = {"seed": 0, "num_sequences": 2, "num_steps": 4}


def test_a_layer_reads_the_outputs_of_those_that_feed_it():
    found = generated_batches(NET, "gaussian", **ASKED)
    assert found["a"].inputs.shape == (2, 4, 2)
    np.testing.assert_array_equal(found["b"].inputs, NET["a"].run(found["a"].inputs))
    assert found["b"].lengths.tolist() == [4, 4]


def test_both_directions_read_the_same_sequences():
    net = Net("test", (layer("a", 2), layer("a_reverse", 2, direction="reverse")))
    found = generated_batches(net, "gaussian", **ASKED)
    np.testing.assert_array_equal(found["a"].inputs, found["a_reverse"].inputs)


def test_inputs_of_another_width_are_refused():
    with pytest.raises(
        ValueError, match="Expected 2 channels for layer a, got 1 from --inputs=dig"
    ):
        generated_batches(NET, "digits", **ASKED)


def test_a_sample_is_run_through_the_model(tmp_path):
    net = dataclasses.replace(NET, capture=lambda sample: {"a": 2 * sample["x"]})
    np.savez(tmp_path / "batch.npz", x=np.ones((2, 4, 2)))
    sample = read_sample(str(tmp_path / "batch.npz"))
    found = captured_batches(net, sample, read_lengths("4,3"))
    np.testing.assert_array_equal(found["a"].inputs, 2.0)
    np.testing.assert_array_equal(found["b"].inputs, NET["a"].run(found["a"].inputs))
    assert found["b"].lengths.tolist() == [4, 3]


def test_one_array_is_the_models_inputs(tmp_path):
    np.save(tmp_path / "batch.npy", np.ones((2, 4, 2)))
    assert read_sample(str(tmp_path / "batch.npy"))["inputs"].shape == (2, 4, 2)


def test_parameters_alone_cannot_be_run():
    with pytest.raises(ValueError, match="the source, test, has parameters alone"):
        captured_batches(NET, {}, None)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ("4,3,2", r"Expected 2 lengths, whole numbers, one for each sequence, got shape \(3,\)"),
        ("5", r"Expected lengths within 1 ... 4, the number of steps, got 5 to 5"),
        ("4,5", r"Expected lengths within 1 ... 4, the number of steps, got 4 to 5"),
        ("4,0", r"Expected lengths within 1 ... 4"),
        ("a,b", "Expected whole numbers with commas, or a file of numpy.save, for lengths"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, message):
    net = dataclasses.replace(NET, capture=lambda sample: {"a": sample["inputs"]})
    with pytest.raises(ValueError, match=message):
        captured_batches(net, {"inputs": np.ones((2, 4, 2))}, read_lengths(lengths))


def test_one_length_is_that_of_all_sequences():
    net = dataclasses.replace(NET, capture=lambda sample: {"a": sample["inputs"]})
    found = captured_batches(net, {"inputs": np.ones((2, 4, 2))}, read_lengths("3"))
    assert found["a"].lengths.tolist() == found["b"].lengths.tolist() == [3, 3]


def masked(*rows):
    """The net, with a mask in its layer a."""
    masks = {"a": np.asarray(rows, bool)}
    return dataclasses.replace(NET, capture=lambda sample: Captured({"a": sample["x"]}, masks))


SAMPLE = {"x": np.ones((2, 4, 2))}


@pytest.mark.parametrize("lengths", [None, "4,3"])
def test_lengths_come_from_the_mask_of_a_layer(lengths):
    given = None if lengths is None else read_lengths(lengths)
    found = captured_batches(masked((1, 1, 1, 1), (1, 1, 1, 0)), SAMPLE, given)
    assert found["a"].lengths.tolist() == [4, 3]


def test_lengths_that_contradict_the_mask_are_refused():
    message = r"Expected the lengths \[4, 3\], which the mask of layer a has, got \[4, 2\]. Remove"
    with pytest.raises(ValueError, match=message):
        captured_batches(masked((1, 1, 1, 1), (1, 1, 1, 0)), SAMPLE, read_lengths("4,2"))


@pytest.mark.parametrize("row", [(0, 0, 1, 1), (1, 0, 1, 1), (0, 0, 0, 0)], ids=str)
def test_a_mask_of_other_than_padding_at_the_end_is_refused(row):
    message = r"mask of layer a that skips only steps at the end .* sequence 1 \(from 0\) skips"
    with pytest.raises(ValueError, match=message):
        captured_batches(masked((1, 1, 1, 0), row), SAMPLE, None)


def test_lengths_come_from_a_file_too(tmp_path):
    np.save(tmp_path / "lengths.npy", np.asarray([2, 4]))
    assert read_lengths(str(tmp_path / "lengths.npy")).tolist() == [2, 4]


def test_a_sample_that_is_missing_is_refused():
    with pytest.raises(FileNotFoundError, match="Expected a sample at 'nowhere.npz', got no file"):
        read_sample("nowhere.npz")


@pytest.mark.parametrize(("shape", "number"), [((3, 4, 2), 3), ((4, 2), 1), ((20, 4, 2), 16)])
def test_a_file_with_fewer_sequences_is_read_whole(shape, number, tmp_path):
    np.save(tmp_path / "x.npy", np.ones(shape))
    spec = f"npy:{tmp_path / 'x.npy'}"
    found = generated_batches(NET, spec, seed=0, num_sequences=None, num_steps=4)
    assert found["a"].inputs.shape == (number, 4, 2)
    with pytest.raises(ValueError, match="Expected num_sequences of at most"):
        generated_batches(NET, spec, seed=0, num_sequences=21, num_steps=4)


def test_a_damaged_sample_is_refused(tmp_path):
    (tmp_path / "batch.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match="Expected the inputs of a model in .*numpy.savez"):
        read_sample(str(tmp_path / "batch.npz"))


def test_a_layer_of_another_width_is_left_out():
    net = Net("test", (layer("a", 1), layer("b", 3)))
    assert list(generated_batches(net, "digits", **ASKED)) == ["a"]
