"""Clusters of texts: which sequences are about the same."""

import numpy as np
import torch

from .balance import balanced_kmeans


def embeddings_of(model, batches, device, progress):
    """float32 [sequences, hidden]: the mean of the model's last hidden states over each sequence's
    real tokens, less the mean of all sequences (which says what all have in common), of unit length."""
    body = getattr(model, "base_model", model)
    rows = []
    bar = progress("embedding texts", len(batches), "batches")
    with torch.no_grad():
        for batch in batches:
            hidden = body(**batch.arguments(model, device), use_cache=False).last_hidden_state
            weight = batch.mask.to(hidden.device)[..., None].to(hidden.dtype)
            rows.append(((hidden * weight).sum(1) / weight.sum(1)).float().cpu().numpy())
            bar.advance()
    bar.finish()
    rows = np.concatenate(rows)
    rows -= rows.mean(0)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def cluster_texts(embeddings, clusters, seed):
    """int32 [sequences]: balanced k-means, so that every cluster has its share of the tokens. There are at
    least as many sequences as clusters."""
    return balanced_kmeans(embeddings, clusters, seed=seed, restarts=10).labels
