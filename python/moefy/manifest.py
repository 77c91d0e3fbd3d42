"""moefy/manifest.json of converted models."""

import functools
import json
import pathlib

from .errors import InputError
from .models import identity_of


def manifest_of(folder):
    path = pathlib.Path(folder) / "moefy" / "manifest.json"
    if not path.exists():
        raise InputError(f"{folder}: no moefy/manifest.json; not made by moefy convert")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


@functools.cache
def _fingerprint(model, architecture, layers):
    return identity_of(model, architecture, layers)["source_fingerprint"]


def was_made_from(manifest, model, architecture=None):
    """Whether a converted model is of this dense one, by config.json and the weights of the FFN layers that
    became experts, which are read."""
    layers = ",".join(map(str, manifest.get("layers", [])))
    return manifest["source_fingerprint"] == _fingerprint(str(model), architecture or "", layers)
