"""Loads the dense and the MoE directory with stock transformers and compares what they compute.

usage: compare.py DENSE MOE TEXT OUT.json

Fails if the MoE directory does not load completely, or if greedy text with all experts on differs
where the dense model was certain.
"""

import json
import math
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = "Explain in three sentences why the sky is blue."
NEW_TOKENS = 48
# Two implementations of one function differ in the order of their sums; below this distance between
# the two best logits of the dense model either token is a correct answer.
UNCERTAIN_MARGIN = 0.1
WINDOW_TOKENS = 512
NUM_WINDOWS = 4
SPARSE_COUNTS = (12, 8, 4)


def load(folder: Path):
    """The model in fp32, and only if the folder holds exactly its parameters."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        output_loading_info=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    problems = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
    if problems:
        raise SystemExit(f"{folder}: transformers does not load it completely: {problems}")
    return model.eval()


def routers(model) -> list:
    """The router modules of a model, which hold the number of experts that a token uses."""
    return [m for m in model.modules() if hasattr(m, "top_k") and hasattr(m, "num_experts")]


def use_experts(model, top_k: int) -> None:
    """What editing num_experts_per_tok in config.json does, on a loaded model."""
    found = routers(model)
    if not found:
        raise SystemExit("the loaded model has no routers; is it a Mixture of Experts?")
    for router in found:
        router.top_k = top_k


@torch.inference_mode()
def greedy(model, prompt: torch.Tensor) -> list[int]:
    ids = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
    )
    return ids[0, prompt.shape[1] :].tolist()


@torch.inference_mode()
def top2_margin(model, ids: list[int]) -> float:
    """Distance of the two best logits for the token after `ids`."""
    best = model(torch.tensor([ids])).logits[0, -1].topk(2).values
    return (best[0] - best[1]).item()


def first_difference(a: list[int], b: list[int]) -> int | None:
    for position, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return position
    return None if len(a) == len(b) else min(len(a), len(b))


def check_greedy(dense, prompt: torch.Tensor, of_dense: list[int], of_moe: list[int]) -> str:
    """How the two texts agree, as words; fails if they differ where the dense model is certain."""
    position = first_difference(of_dense, of_moe)
    if position is None:
        return f"the same {len(of_dense)} tokens"
    margin = top2_margin(dense, prompt[0].tolist() + of_dense[:position])
    if margin >= UNCERTAIN_MARGIN:
        raise SystemExit(
            f"greedy text differs at token {position}, where the dense model's two best logits lie "
            f"{margin:.4f} apart (a difference is expected only below {UNCERTAIN_MARGIN})"
        )
    return f"the same {position} tokens, then a near tie (margin {margin:.4f})"


@torch.inference_mode()
def perplexity(model, ids: list[int]) -> float:
    total, count = 0.0, 0
    for begin in range(0, min(len(ids), NUM_WINDOWS * WINDOW_TOKENS), WINDOW_TOKENS):
        window = torch.tensor([ids[begin : begin + WINDOW_TOKENS]])
        logits = model(window).logits[0, :-1]
        targets = window[0, 1:]
        total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
        count += targets.numel()
    return math.exp(total / count)


def compare(dense_folder: Path, moe_folder: Path, text: str) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(moe_folder, local_files_only=True)
    message = [{"role": "user", "content": PROMPT}]
    prompt = tokenizer.apply_chat_template(
        message, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    ids = tokenizer(text, add_special_tokens=False).input_ids
    dense, moe = load(dense_folder), load(moe_folder)
    num_experts = moe.config.num_experts
    use_experts(moe, num_experts)
    of_dense, of_moe = greedy(dense, prompt), greedy(moe, prompt)
    agreement = check_greedy(dense, prompt, of_dense, of_moe)
    rows = {"dense": perplexity(dense, ids)}
    for top_k in (num_experts, *SPARSE_COUNTS):
        use_experts(moe, top_k)
        rows[str(top_k)] = perplexity(moe, ids)
    return {
        "prompt": PROMPT,
        "dense_text": tokenizer.decode(of_dense, skip_special_tokens=True),
        "moe_text": tokenizer.decode(of_moe, skip_special_tokens=True),
        "agreement": agreement,
        "num_experts": num_experts,
        "text_tokens": min(len(ids), NUM_WINDOWS * WINDOW_TOKENS),
        "perplexity": rows,
    }


def main() -> None:
    dense, moe, text, out = map(Path, sys.argv[1:5])
    result = compare(dense, moe, text.read_text(encoding="utf-8"))
    print("prompt: ", result["prompt"])
    print("dense:  ", result["dense_text"])
    print("experts:", result["moe_text"])
    print("greedy text, fp32, all experts on:", result["agreement"])
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
