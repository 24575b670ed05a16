"""How `gradflow.unroll` runs batches on each backend: one table of what was measured there."""

from typing import NamedTuple

import jax


class Rules(NamedTuple):
    """The choices that depend on the backend.

    Attributes:
      most_planned: The largest batch that ``method="auto"`` plans.
      otherwise: The method of larger batches.
      segment: Steps after which a planned run forms the gradients of matrices, which bounds their
        memory.
      chunk: Steps that a parallel run takes at once, which bounds its memory.
    """

    most_planned: int
    otherwise: str
    segment: int
    chunk: int

    def method_of(self, batch_size: int) -> str:
        """Returns the method by which ``auto`` runs so many sequences."""
        return "planned" if batch_size <= self.most_planned else self.otherwise


RULES: dict[str, Rules] = {
    # Two CPU cores, benchmarks/train.py: from 64 sequences on, the plain scan was as fast.
    # benchmarks/parallel.py: chunks of 32 took less time, but no gradient took less than by a scan.
    "cpu": Rules(most_planned=63, otherwise="scan", segment=32, chunk=128),
    # Not measured: benchmarks/accelerator.py does. A step costs its number of kernels there, which
    # joined products lower whatever the shape; that the rest of a plan pays off is not known.
    "gpu": Rules(most_planned=0, otherwise="joined", segment=32, chunk=128),
    "tpu": Rules(most_planned=0, otherwise="joined", segment=32, chunk=128),
}
"""The rules by the name of JAX's backend."""


def rules() -> Rules:
    """Returns the rules of the default backend; of one that the table lacks, those of a GPU."""
    return RULES.get(jax.default_backend(), RULES["gpu"])
