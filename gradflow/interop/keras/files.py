"""The parts of the files of Keras: configuration, version and weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradflow.checks import shorten
from gradflow.interop.archives import opened_archive, undamaged
from gradflow.interop.keras.config import ConfigWalk
from gradflow.interop.keras.graph import is_built_in
from gradflow.interop.keras.hdf5_files import Hdf5File

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
"""The members of a ``.keras`` file."""

Config = dict[str, Any]


def parsed_config(text: bytes, path: Path) -> Config:
    """Returns the JSON object of a configuration."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Expected a configuration in JSON in {str(path)!r}, but it cannot be read "
            f"({shorten(error)}). Save the model again with Keras."
        ) from None
    if not isinstance(config, dict):
        raise ValueError(
            f"Expected the configuration of a model in {str(path)!r}, got {shorten(config)}. Save "
            "the model again with Keras."
        )
    return config


def config_of_archive(path: Path) -> Config:
    """Returns the configuration in a ``.keras`` file, with the version of Keras that wrote it."""
    with opened_archive(path) as archive:
        config = parsed_config(archive.read(CONFIG), path)
        if METADATA in archive.names:
            about = parsed_config(archive.read(METADATA), path)
            config.setdefault("keras_version", about.get("keras_version"))
    return config


def config_at(path: Path) -> Config:
    """Returns the configuration that a user names: a JSON file, or a ``.keras`` file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a configuration at {str(path)!r}, got none. Check the path in config."
        )
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    return config_of_archive(path) if is_archive else parsed_config(path.read_bytes(), path)


def weights_root(file: Hdf5File) -> str:
    """Returns the group of the weights: a whole model of Keras 2 has them in one."""
    return "model_weights" if "model_weights" in file.groups else ""


def keras_version(config: Mapping[str, Any] | None, file: Hdf5File) -> str:
    """Returns the version of Keras that wrote a model; ``2`` or ``3`` if it does not say more."""
    of_weights = file.attributes(weights_root(file))
    given = [one.get("keras_version") for one in (config or {}, of_weights)]
    known = [one for one in given if isinstance(one, str) and one[:1].isdigit()]
    return known[0] if known else "3" if config is None or "module" in config else "2"


def has_layers(config: Mapping[str, Any]) -> bool:
    """Whether a configuration has the layers of the model; that of a subclass does not."""
    inner = config.get("config")
    return isinstance(inner, list) or (isinstance(inner, dict) and "layers" in inner)


def walked(config: Mapping[str, Any], version: str) -> ConfigWalk:
    """Returns the recurrent cells of a configuration."""
    with undamaged("the configuration of a Keras model", "Save the model again with Keras."):
        return ConfigWalk(config, int(version.split(".")[0]))


def is_all_built_in(config: Any) -> bool:
    """Whether a configuration names nothing but Keras's own classes, at any depth."""
    if isinstance(config, Mapping):
        name = config.get("class_name")
        if name is not None and (name == "function" or not is_built_in(config)):
            return False
        return all(is_all_built_in(value) for value in config.values())
    return not isinstance(config, list) or all(is_all_built_in(value) for value in config)
