"""moefy: dense Transformers into Mixtures of Experts. This package holds what needs a live PyTorch
model; everything else is the program `moefy`."""
