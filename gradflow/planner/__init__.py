"""Running a step fast: its jaxpr taken apart, products joined, weight gradients after the loop."""

from gradflow.planner.ways import METHODS, REMATS, way_of

__all__ = ["METHODS", "REMATS", "way_of"]
