"""Networks of Flax, Haiku and Equinox, and Flax's cells from and to those of gradflow."""
