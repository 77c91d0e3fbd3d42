"""`moefy evaluate`: a dense model and MoE models made of it on the same text, in stock classes."""

import json
import math
import pathlib
import time

import numpy as np
import torch

from . import options
from .errors import MoefyError, UsageError
from .manifest import manifest_of, was_made_from
from .models import load_model, load_tokenizer, model_directory, require_causal
from .names import distinct_names
from .output import json_text
from .progress import Progress
from .texts import read_text, to_sequences


class Text:
    """A named text as token sequences [count, length]."""

    def __init__(self, name, sequences):
        self.name, self.sequences = name, sequences


def load_texts(args, tokenizer):
    texts = []
    for name, path in zip(distinct_names(args.text), args.text):
        sequences = to_sequences(tokenizer, read_text(path), args.length, path)
        order = np.random.default_rng(args.seed).permutation(len(sequences))
        sequences = sequences[np.sort(order[: args.sequences])]
        texts.append(Text(name, sequences))
    return texts


def run_model(model, texts, device, bar):
    """Per text: (negative log-likelihoods [count, length - 1], most likely next tokens), and tokens
    a second."""
    figures = []
    tokens, seconds = 0, 0.0
    for text in texts:
        losses, guesses = [], []
        for ids in text.sequences:
            ids = torch.as_tensor(ids)[None].to(device)
            begin = time.monotonic()
            with torch.no_grad():
                logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            losses.append(torch.nn.functional.cross_entropy(
                logits, ids[0, 1:], reduction="none").double().cpu().numpy())
            guesses.append(logits.argmax(-1).cpu().numpy())
            seconds += time.monotonic() - begin
            tokens += ids.shape[1]
            bar.advance(text.name)
        figures.append((np.stack(losses), np.stack(guesses)))
    return figures, tokens / max(seconds, 1e-9)


def interval(differences):
    """Half-width of the 95 % interval of the mean of paired differences, one a sequence."""
    if len(differences) < 2:
        return math.nan
    return 1.96 * float(np.std(differences, ddof=1)) / math.sqrt(len(differences))


def variants(folder, top_ks):
    """The numbers of routed experts to measure a converted model with."""
    manifest = manifest_of(folder)
    stored = manifest["options"]["top_k"]
    if stored is None:
        return [None]
    wanted = [stored]
    for top_k in top_ks:
        if top_k > manifest["experts"]["num_experts"]:
            raise UsageError(f"--top-k {top_k}: {folder} has"
                             f" {manifest['experts']['num_experts']} routed experts")
        if manifest["top_k_editable"] and top_k not in wanted:
            wanted.append(top_k)
    return wanted


def active_parameters(folder, manifest, total, top_k):
    """Parameters used for one token."""
    experts = manifest.get("experts")
    if not experts:
        return total
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    layers = sum(scale is not None for scale in manifest["gate_scale_log2"])
    idle = experts["num_experts"] - top_k
    return total - layers * idle * experts["expert_width"] * config["hidden_size"] * 3


def measure(name, model, texts, dense, device, progress, **fields):
    """One row of the table. dense: figures of the dense model, or None for its own row."""
    bar = progress(f"evaluating {name}", sum(len(text.sequences) for text in texts), "sequences")
    figures, speed = run_model(model, texts, device, bar)
    bar.finish()
    row = {"model": name, **fields, "tokens_per_second": speed, "texts": {}}
    dense = dense or figures
    ratios, differences, agreements = [], [], []
    for text, (losses, guesses), (dense_losses, dense_guesses) in zip(texts, figures, dense):
        difference = (losses - dense_losses).mean(1)
        ratios.append(float(difference.mean()))
        differences.append(difference - difference.mean())
        agreements.append(float((guesses == dense_guesses).mean()))
        row["texts"][text.name] = {
            "perplexity": float(np.exp(losses.mean())),
            "times_dense": float(np.exp(ratios[-1])),
            "interval": interval(difference),
            "agreement": agreements[-1],
        }
    row["perplexity"] = float(np.exp(np.mean([np.log(text["perplexity"])
                                              for text in row["texts"].values()])))
    row["times_dense"] = float(np.exp(np.mean(ratios)))
    row["interval"] = math.sqrt(sum(interval(d) ** 2 for d in differences)) / len(differences)
    row["agreement"] = float(np.mean(agreements))
    return row, figures


def table(rows):
    texts = list(rows[0]["texts"])
    head = ["model", "top-k", "active", *texts, "mean", "× dense", "agree", "tokens/s"]
    lines = [head]
    for row in rows:
        share = row["active_parameters"] / row["parameters"]
        lines.append([
            row["model"], str(row["top_k"] or "-"), f"{row['active_parameters'] / 1e6:.0f}M"
            f" ({share:.0%})", *(f"{row['texts'][name]['perplexity']:.2f}" for name in texts),
            f"{row['perplexity']:.2f}",
            f"{row['times_dense']:.3f}" + ("" if math.isnan(row["interval"])
                                           else f" ±{row['times_dense'] * row['interval']:.3f}"),
            f"{row['agreement']:.1%}", f"{row['tokens_per_second']:.0f}"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                               for column, (cell, width) in enumerate(zip(line, widths)))
                     for line in lines)


def plot(rows, path):
    """Perplexity over active parameters, one line a model."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for name in dict.fromkeys(row["model"] for row in rows):
        mine = sorted((row["active_parameters"] / 1e6, row["times_dense"])
                      for row in rows if row["model"] == name)
        axes.plot(*zip(*mine), "o-", label=name)
    axes.set_xlabel("active parameters [millions]")
    axes.set_ylabel("perplexity, times dense")
    axes.set_yscale("log")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def run_tasks(folder, tasks, device):
    """What lm-evaluation-harness finds: task -> figures."""
    import lm_eval

    found = lm_eval.simple_evaluate(model="hf", tasks=tasks.split(","), device=device,
                                    model_args=f"pretrained={model_directory(folder)},dtype=float32")
    return found["results"]


def tasks_table(rows):
    """Numbers of every task, one line a model and task."""
    lines = []
    for row in rows:
        for task, figures in row.get("tasks", {}).items():
            numbers = (f"{name} {value:.4f}" for name, value in figures.items()
                       if isinstance(value, float))
            lines.append(f"{row['model']}  {task}  {'  '.join(numbers)}")
    return "\n".join(lines)


def check_origins(args, out):
    """Warns of converted models that were not made from the dense one."""
    if args.no_verify:
        return
    for folder in args.outputs:
        try:
            made = was_made_from(manifest_of(folder), args.model, args.architecture)
        except MoefyError as error:
            out.warning(f"it cannot be told whether {folder} was made from {args.model}: {error}")
            continue
        if not made:
            out.warning(f"{folder} was not made from {args.model}: figures relative to the dense model"
                        " compare it with another one")


def run(args, out):
    for folder in (args.model, *args.outputs):
        require_causal(folder, "evaluate")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    plans = [(name, folder, variants(folder, options.counts(args.top_k)))
             for name, folder in zip(distinct_names(args.outputs, {"dense"}), args.outputs)]
    check_origins(args, out)
    progress = Progress.factory(args)
    texts = load_texts(args, load_tokenizer(args.model))
    model = load_model(args.model).to(args.device)
    total = sum(parameter.numel() for parameter in model.parameters())
    row, dense = measure("dense", model, texts, None, args.device, progress, top_k=None,
                         parameters=total, active_parameters=total)
    rows = [row]
    as_stored = [(row, args.model)]
    for name, folder, chosen in plans:
        manifest = manifest_of(folder)
        for top_k in chosen:
            edits = {} if top_k is None else {"num_experts_per_tok": top_k}
            model = load_model(folder, **edits).to(args.device)
            total = sum(parameter.numel() for parameter in model.parameters())
            row, _ = measure(name, model, texts, dense, args.device, progress,
                             top_k=top_k, parameters=total,
                             active_parameters=active_parameters(folder, manifest, total, top_k))
            rows.append(row)
            if top_k == chosen[0]:
                as_stored.append((row, folder))
            del model
    if args.tasks:
        for row, folder in as_stored:
            row["tasks"] = run_tasks(folder, args.tasks, args.device)
    if args.output:
        pathlib.Path(args.output).write_text(json_text(rows, indent=1) + "\n")
    if args.plot:
        plot(rows, args.plot)
    if args.json:
        for row in rows:
            out.result(row, "")
    else:
        out.result({}, "\n".join(filter(None, (table(rows), tasks_table(rows)))))
