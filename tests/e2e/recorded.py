"""Recordings without a run of the model: random inputs that fit a checkpoint."""

import h5py
import numpy as np


def write_recordings(moefy, model, path, tokens, dtype="<f2", clusters=4, seed=0):
    """Random inputs of every layer of `model`, as `moefy record` lays them out."""
    moefy("split", model, "-o", "fingerprints.h5", "--experts", 2, "--method", "contiguous",
          "--force")
    random = np.random.default_rng(seed)
    with h5py.File(moefy.folder / "fingerprints.h5") as known, h5py.File(path, "w") as file:
        file.attrs.update(format="moefy-recordings", schema_version=np.int64(1),
                          num_tokens=np.int64(tokens),
                          source_fingerprint=known.attrs["source_fingerprint"])
        file["config"] = "{}"
        for name, layer in known["layers"].items():
            group = file.create_group(f"layers/{name}")
            for field in ("layer_index", "name", "num_neurons", "hidden_size", "fingerprint"):
                group.attrs[field] = layer.attrs[field]
            values = random.standard_normal((tokens, layer.attrs["hidden_size"]))
            if dtype == "bfloat16":
                bits = values.astype(np.float32).view(np.uint32) >> 16
                group["x"] = bits.astype(np.uint16)
                group["x"].attrs["dtype"] = "bfloat16"
            else:
                group["x"] = values.astype(dtype)
            file[f"importance/{name}/up"] = random.random((clusters, layer.attrs["num_neurons"]))
    return path
