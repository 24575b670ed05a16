"""The monitor of a training that runs, for PyTorch, Keras and JAX."""
