"""Fixtures of the end-to-end tests: the built program, and small dense models to feed it."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]


def program_path():
    path = pathlib.Path(os.environ.get("MOEFY_PROGRAM", ROOT / "build/release/bin/moefy"))
    assert path.exists(), f"{path} is not built; run launch/build"
    return path


def helper(name):
    """A small program of the tests, in the same build folder as moefy."""
    path = program_path().parent.parent / "tests" / name
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return path


@pytest.fixture(scope="session", autouse=True)
def launcher_folder(tmp_path_factory):
    """Launchers of Open MPI make and remove one folder a user, in each other's way when two start."""
    os.environ["OMPI_MCA_orte_tmpdir_base"] = str(tmp_path_factory.mktemp("launcher"))


class Moefy:
    """Runs the program, alone or on several ranks, with a time limit instead of a hang."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, *arguments, ranks=0, check=True, env=None, timeout=120):
        command = [str(program_path()), *map(str, arguments)]
        if ranks:
            launcher = [str(ROOT / "launch/mpirun"), "--timeout", str(timeout), "-np", str(ranks)]
            command = launcher + command
        result = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            errors="replace",  # file names are bytes
            timeout=timeout + 20,
        )
        if check:
            assert result.returncode == 0, result.stderr
        return result

    def json_lines(self, *arguments, **options):
        output = self(*arguments, "--json", **options).stdout
        return [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def moefy(tmp_path):
    return Moefy(tmp_path)


def write_llama(folder, layers=3, hidden=32, ffn=96, vocab=64, seed=0, dtype=np.float32):
    """A small Llama checkpoint of random values, without torch."""
    random = np.random.default_rng(seed)

    def values(*shape):
        return (random.standard_normal(shape) * 0.05).astype(dtype)

    tensors = {"model.embed_tokens.weight": values(vocab, hidden), "model.norm.weight": values(hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name in ("q", "k", "v", "o"):
            tensors[prefix + f"self_attn.{name}_proj.weight"] = values(hidden, hidden)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[prefix + name + ".weight"] = np.ones(hidden, dtype)
        tensors[prefix + "mlp.gate_proj.weight"] = values(ffn, hidden)
        tensors[prefix + "mlp.up_proj.weight"] = values(ffn, hidden)
        tensors[prefix + "mlp.down_proj.weight"] = values(hidden, ffn)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": vocab,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 128,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


@pytest.fixture
def llama(tmp_path):
    return write_llama(tmp_path / "llama")
