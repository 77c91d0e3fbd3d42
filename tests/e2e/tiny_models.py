"""Tiny random models of every family, saved by transformers. A new family is one line of FAMILIES.

    write_tiny("gpt2", folder)   makes the model, saves it, and returns the live torch module
"""

import torch
import transformers

HIDDEN, NEURONS, LAYERS, VOCABULARY = 16, 24, 2, 32

COMMON = dict(vocab_size=VOCABULARY, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
PLAIN = dict(COMMON, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=2)
WIDE = dict(PLAIN, intermediate_size=NEURONS)
LLAMA = dict(WIDE, num_key_value_heads=1, head_dim=8)
T5 = dict(d_model=HIDDEN, d_ff=NEURONS, num_layers=LAYERS, num_decoder_layers=LAYERS + 1, num_heads=2, d_kv=8,
          vocab_size=VOCABULARY, decoder_start_token_id=0)

# name -> (model_type, auto class, configuration)
CAUSAL, MASKED, SEQ2SEQ = "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM"
FAMILIES = {
    "llama": ("llama", CAUSAL, LLAMA),
    "llama-bias": ("llama", CAUSAL, dict(LLAMA, mlp_bias=True)),
    "llama-attention-bias": ("llama", CAUSAL, dict(LLAMA, attention_bias=True)),
    "llama-base": ("llama", "AutoModel", LLAMA),
    "mistral": ("mistral", CAUSAL, LLAMA),
    "qwen2": ("qwen2", CAUSAL, LLAMA),
    "qwen3": ("qwen3", CAUSAL, LLAMA),
    "gemma": ("gemma", CAUSAL, LLAMA),
    "gemma2": ("gemma2", CAUSAL, LLAMA),
    "gemma3": ("gemma3_text", CAUSAL, LLAMA),
    "granite": ("granite", CAUSAL, dict(LLAMA, embedding_multiplier=12.0, residual_multiplier=0.22,
                                        attention_multiplier=0.0625, logits_scaling=8.0)),
    "granite-bias": ("granite", CAUSAL, dict(LLAMA, mlp_bias=True)),
    "phi3": ("phi3", CAUSAL, dict(WIDE, num_key_value_heads=1)),
    "gpt2": ("gpt2", CAUSAL, dict(COMMON, n_embd=HIDDEN, n_inner=NEURONS, n_layer=LAYERS, n_head=2, n_positions=64)),
    "gpt2-default-width": ("gpt2", CAUSAL, dict(COMMON, n_embd=HIDDEN, n_layer=LAYERS, n_head=2, n_positions=64)),
    "gpt2-base": ("gpt2", "AutoModel", dict(COMMON, n_embd=HIDDEN, n_inner=NEURONS, n_layer=LAYERS, n_head=2)),
    "opt": ("opt", CAUSAL, dict(PLAIN, ffn_dim=NEURONS, word_embed_proj_dim=HIDDEN)),
    "opt-base": ("opt", "AutoModel", dict(PLAIN, ffn_dim=NEURONS, word_embed_proj_dim=HIDDEN)),
    "gpt_neox": ("gpt_neox", CAUSAL, WIDE),
    "gpt_neox-base": ("gpt_neox", "AutoModel", WIDE),
    "bert": ("bert", MASKED, WIDE),
    "bert-base": ("bert", "AutoModel", WIDE),
    "t5": ("t5", SEQ2SEQ, dict(T5, feed_forward_proj="relu")),
    "t5-gated": ("t5", SEQ2SEQ, dict(T5, feed_forward_proj="gated-gelu")),
}


def build_tiny(name, seed=0):
    """The random model: every parameter is drawn, so biases and norms are not their neutral values."""
    model_type, auto_class, settings = FAMILIES[name]
    config = transformers.AutoConfig.for_model(model_type, **settings)
    torch.manual_seed(seed)
    model = getattr(transformers, auto_class).from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def write_tiny(name, folder, seed=0, dtype=torch.float32, **options):
    model = build_tiny(name, seed).to(dtype)
    model.save_pretrained(folder, **options)
    return model


def load_tiny(name, folder):
    """Loads as a user would, in fp32, and insists that every tensor was used and none is missing."""
    auto_class = getattr(transformers, FAMILIES[name][1])
    model, report = auto_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {key: value for key, value in report.items() if value}
    assert not problems, problems
    return model.eval()


def output_of(model):
    """Logits (or hidden states) on fixed tokens."""
    tokens = torch.arange(24).reshape(2, 12) % (VOCABULARY - 3) + 3
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens.flip(1)
    with torch.no_grad():
        return model(**inputs)[0]
