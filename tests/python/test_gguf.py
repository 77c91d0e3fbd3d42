"""`convert --gguf`: the file's tensors against the checkpoint's, and llama.cpp against transformers."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.python.conftest import PROGRAM  # noqa: F401  (paths of the package)

VOCABULARY = 300
ARCHITECTURE = {"dense": "llama", "mixtral": "llama", "qwen2-moe": "qwen2moe", "glm4-moe": "glm4moe"}
SHARED = {"dense": 0, "mixtral": 0, "qwen2-moe": 4, "glm4-moe": 2}


def write_bpe(folder):
    """A byte-level BPE tokenizer that was trained on next to nothing."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 9, VOCABULARY - 20,
                                  special_tokens=["<pad>", "<s>", "</s>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, pad_token="<pad>",
                            bos_token="<s>", eos_token="</s>").save_pretrained(folder)


@pytest.fixture
def dense(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1,
        eos_token_id=2, tie_word_embeddings=False))
    for parameter in model.parameters():  # far from uniform next tokens
        if parameter.ndim == 2:
            parameter.data *= 4
    model.save_pretrained(tmp_path / "dense")
    write_bpe(tmp_path / "dense")
    return tmp_path / "dense"


def convert(moefy, dense, host, *more, output="out", **options):
    shared = SHARED.get(host, 0)
    moefy("split", dense, "-o", "map.h5", "--experts", 16 if shared != 2 else 14, "--shared", shared,
          "--top-k", 4, "--method", "random", "--force", "--quiet")
    return moefy("convert", dense, "map.h5", "-o", output, "--host", host, "--gguf", "out.gguf",
                 "--quiet", *more, **options)


def weights(folder):
    found = {}
    for path in folder.glob("*.safetensors"):
        found.update(load_file(path))
    return found


def read(path):
    from gguf import GGUFReader

    reader = GGUFReader(path)
    return ({key: field.contents() for key, field in reader.fields.items()},
            {tensor.name: np.asarray(tensor.data) for tensor in reader.tensors})


@pytest.mark.parametrize("host", ARCHITECTURE)
def test_tensors_and_keys_are_those_of_the_checkpoint(moefy, dense, host, tmp_path):
    convert(moefy, dense, host)
    keys, tensors = read(tmp_path / "out.gguf")
    stock = {name: value.numpy() for name, value in weights(tmp_path / "out").items()}
    arch = ARCHITECTURE[host]
    assert keys["general.architecture"] == arch and keys[f"{arch}.block_count"] == 3
    assert keys["tokenizer.ggml.model"] == "gpt2" and len(keys["tokenizer.ggml.tokens"]) == VOCABULARY
    assert (keys["tokenizer.ggml.bos_token_id"], keys["tokenizer.ggml.eos_token_id"]) == (1, 2)
    np.testing.assert_array_equal(tensors["token_embd.weight"], stock["model.embed_tokens.weight"])
    query = stock["model.layers.1.self_attn.q_proj.weight"]
    if arch == "llama":
        query = query.reshape(4, 2, 8, 64).swapaxes(1, 2).reshape(64, 64)
    np.testing.assert_array_equal(tensors["blk.1.attn_q.weight"], query)
    if host == "dense":
        np.testing.assert_array_equal(tensors["blk.2.ffn_down.weight"],
                                      stock["model.layers.2.mlp.down_proj.weight"])
        return
    block, names = "mlp", ("gate_proj", "up_proj", "down_proj")
    if host == "mixtral":
        block, names = "block_sparse_moe", ("w1", "w3", "w2")
    experts = keys[f"{arch}.expert_count"]
    assert keys[f"{arch}.expert_used_count"] == 4
    for part, name in zip(("gate", "up", "down"), names):
        expected = np.stack([stock[f"model.layers.2.{block}.experts.{e}.{name}.weight"]
                             for e in range(experts)])
        np.testing.assert_array_equal(tensors[f"blk.2.ffn_{part}_exps.weight"], expected)
    np.testing.assert_array_equal(tensors["blk.0.ffn_gate_inp.weight"],
                                  stock[f"model.layers.0.{block}.gate.weight"])
    assert ("blk.0.ffn_up_shexp.weight" in tensors) == (host in ("qwen2-moe", "glm4-moe"))


@pytest.mark.parametrize("kind, dtype", [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_matrices_are_rounded_and_vectors_kept(moefy, dense, kind, dtype, tmp_path):
    convert(moefy, dense, "glm4-moe", "--gguf-type", kind)
    _, tensors = read(tmp_path / "out.gguf")
    stock = weights(tmp_path / "out")
    found = torch.tensor(tensors["blk.0.attn_output.weight"]).view(dtype).reshape(64, 64)
    assert torch.equal(found, stock["model.layers.0.self_attn.o_proj.weight"].to(dtype))
    for name, source in (("blk.1.attn_norm.weight", "input_layernorm.weight"),
                         ("blk.1.ffn_gate_inp.weight", "mlp.gate.weight")):
        np.testing.assert_array_equal(tensors[name], stock[f"model.layers.1.{source}"].numpy())


def top_tokens(folder, file, prompts):
    """Log-probabilities of the 20 most likely next tokens by llama.cpp and those of transformers."""
    llama_cpp = pytest.importorskip("xllamacpp")
    from moefy.models import load_model

    params = llama_cpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 256, 1, False, -1
    params.cpuparams.n_threads = 1
    params.cache_type_k = params.cache_type_v = llama_cpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama_cpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = llama_cpp.Server(params)
    model = load_model(str(folder))
    for prompt in prompts:
        answer = server.handle_completions({"prompt": prompt, "n_predict": 1, "n_probs": 20,
                                            "temperature": 0, "cache_prompt": False})
        answer = json.loads(answer) if isinstance(answer, str) else answer
        if not answer["choices"][0]["logprobs"]:
            continue  # the token ended the text, or half a character
        found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        yield [(token["logprob"], float(expected[token["id"]])) for token in found]


@pytest.mark.parametrize("host", ARCHITECTURE)
def test_llama_cpp_computes_what_transformers_does(moefy, dense, host, tmp_path):
    convert(moefy, dense, host, "--gguf-type", "f32")
    ids = (np.arange(24) * 11 % 250 + 5).tolist()
    prompts = [ids[:length] for length in range(2, 24)]
    compared = list(top_tokens(tmp_path / "out", tmp_path / "out.gguf", prompts))
    assert len(compared) > 3
    for pairs in compared:
        found, expected = np.array(pairs).T
        np.testing.assert_allclose(found, expected, atol=5e-3)


def test_what_llama_cpp_cannot_carry_is_refused_before_anything_is_written(moefy, dense, tmp_path):
    result = convert(moefy, dense, "granitemoe", code=2)
    assert "--host" in result.stderr and "granitemoe" in result.stderr
    result = convert(moefy, dense, "glm4-moe", "--layout", "fused", code=2)
    assert "classic" in result.stderr
    (tmp_path / "out.gguf").write_text("mine")
    result = convert(moefy, dense, "glm4-moe", code=2)
    assert "--force" in result.stderr and (tmp_path / "out.gguf").read_text() == "mine"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how, message", [("missing", "no tokenizer.json"), ("words", "WordLevel"),
                                          ("cut", "pre-tokenizer"), ("broken", "JSON")])
def test_tokenizers_that_cannot_be_written_are_named(moefy, dense, tmp_path, how, message):
    path = dense / "tokenizer.json"
    content = json.loads(path.read_text())
    if how == "missing":
        path.unlink()
    elif how == "words":
        content["model"]["type"] = "WordLevel"
    elif how == "cut":
        content["pre_tokenizer"] = {"type": "Whitespace"}
    if how == "broken":
        path.write_text("{")
    elif how != "missing":
        path.write_text(json.dumps(content))
    result = convert(moefy, dense, "glm4-moe", code=3)
    assert message in result.stderr
    assert not (tmp_path / "out.gguf").exists() and not (tmp_path / "out.gguf.unfinished").exists()


def test_values_beyond_half_precision_are_named(moefy, dense, tmp_path):
    from safetensors.torch import save_file

    tensors = load_file(dense / "model.safetensors")
    tensors["model.layers.1.self_attn.o_proj.weight"][0, 0] = 1e6
    save_file(tensors, dense / "model.safetensors", metadata={"format": "pt"})
    result = convert(moefy, dense, "glm4-moe", "--gguf-type", "f16", code=3)
    assert "model.layers.1.self_attn.o_proj.weight" in result.stderr and "bf16" in result.stderr
    assert not (tmp_path / "out.gguf").exists()
