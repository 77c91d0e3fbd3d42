"""moefy: dense Transformers into Mixtures of Experts. This package holds what needs a live PyTorch
model; everything else is the program `moefy`.

    moefy.record(model, dataloader, "rec.h5")    FFN inputs of a model on batches of one's own
    moefy.balanced_assign(cost, lo, hi)          exact assignment with bounds on the sizes
    moefy.balanced_kmeans(x, k)                  exact balanced k-means
"""

import importlib

_PLACES = {"record": "recording", "balanced_assign": "balance", "balanced_kmeans": "balance"}

__all__ = list(_PLACES)


def __getattr__(name):
    # torch takes seconds to import; the command line must be able to say --help without it.
    if name in _PLACES:
        return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
