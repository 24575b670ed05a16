"""What the nets are given to read: synthetic tasks, and sequences from files."""

from gradflow.tasks.inputs import make_inputs

__all__ = ["make_inputs"]
