"""moefy: dense Transformers into Mixtures of Experts. This package holds what needs a live PyTorch
model; everything else is the program `moefy`.

    moefy.record(model, dataloader, "rec.h5")    FFN inputs of a model on batches of one's own
"""

__all__ = ["record"]


def __getattr__(name):
    # torch takes seconds to import; the command line must be able to say --help without it.
    if name == "record":
        from .recording import record

        return record
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
