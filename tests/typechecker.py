"""The run-time type checker of the tests."""

from beartype import BeartypeConf, beartype

# An int stands for a float, as in every signature of Python.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
