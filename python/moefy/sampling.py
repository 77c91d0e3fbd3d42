"""Text that a model writes by itself."""

import contextlib

import torch
from torch.overrides import TorchFunctionMode

# Short, so that many beginnings cover many domains, and cheap: all are written side by side.
SAMPLED_LENGTH = 128
CACHED_ROWS = 8  # of logits, that the steps of a draw go through while a cache holds them


def draw(logits, generator):
    """int64 [count, 1]: a token a row of logits [count, vocab] by its probability. (multinomial draws a
    number for every token of the vocabulary, which takes longer than a small model's own work.)"""
    chances = torch.rand(len(logits), 1, generator=generator)
    return torch.cat([_drawn(rows, chance) for rows, chance in
                      zip(logits.split(CACHED_ROWS), chances.split(CACHED_ROWS))])


def _drawn(logits, chance):
    heights = torch.softmax(logits.float(), -1).cumsum_(-1)
    return torch.searchsorted(heights, chance * heights[:, -1:], right=True).clamp_(
        max=logits.shape[1] - 1)


def first_tokens(tokenizer, count, generator):
    """int64 [count, 1]: in turn what the tokenizer begins a text with, and any word of the vocabulary. The
    one leads to what the model likes to speak of, the others to all else that it knows."""
    special = set(tokenizer.all_special_ids)
    words = torch.tensor([token for token in range(len(tokenizer)) if token not in special])
    ids = words[torch.randint(len(words), (count, 1), generator=generator)]
    start = tokenizer.bos_token_id
    if start is None:
        start = tokenizer.eos_token_id
    if start is not None:
        ids[::2] = start
    return ids


class Fp32Attention(TorchFunctionMode):
    """Attends in fp32: most CPUs multiply the one bf16 row that a new token asks with slower than its fp32
    copy, and the longer the text the more of the time that is."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query = args[0] if args else kwargs["query"]
        wide = {name: _fp32(value) for name, value in kwargs.items()}
        return func(*map(_fp32, args), **wide).to(query.dtype)


def _fp32(value):
    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value


def sample_text(model, tokenizer, num_tokens, length, seed, progress):
    """int64 [count, length]: text that the model writes by itself, all sequences at once."""
    count = max(1, -(-num_tokens // length))
    generator = torch.Generator().manual_seed(seed)
    ids = first_tokens(tokenizer, count, generator)
    bar = progress("sampling text", length, "tokens a sequence")
    past = None
    slow = model.device.type == "cpu" and model.dtype == torch.bfloat16
    attention = Fp32Attention() if slow else contextlib.nullcontext()
    with torch.no_grad(), attention:
        step = ids
        while ids.shape[1] < length:
            out = model(input_ids=step.to(model.device), past_key_values=past, use_cache=True)
            past = out.past_key_values
            step = draw(out.logits[:, -1].cpu(), generator)
            ids = torch.cat([ids, step], 1)
            bar.advance()
    bar.finish()
    return ids.numpy()
