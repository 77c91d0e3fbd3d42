"""`moefy recover`: distils the dense model into a converted one. All FFN weights and routers learn, by
a straight-through gradient through the choice of experts; everything else stays as it is."""

import pathlib
import time

import numpy as np
import torch

from .devices import uses_bf16
from .errors import InputError, UsageError
from .manifest import manifest_of, was_made_from
from .memory import keep_freed_memory
from .models import load_model, load_tokenizer, read_config
from .progress import Progress
from .ranks import Ranks
from .sampling import sample_text
from .texts import digest_of_tokens, read_text, to_sequences
from .sparse_ffn import require_trainable
from .trained_output import write_output
from .training import Schedule, Training, require_plain_head, train
from .training_journal import Journal


def read_texts(args, tokenizer):
    """int64 [count, length] of each text."""
    return [to_sequences(tokenizer, read_text(path), args.length, path) for path in args.text]


def record_of(args, identity, training, ranks):
    """What the manifest says of the training."""
    return {**identity, "steps": training.step_number, "ranks": ranks.size,
            "tokens_a_step": args.length * args.batch * ranks.size, "seconds": round(training.seconds, 1),
            "loss_at_the_end": float(np.mean(training.losses)) if training.losses else None}


def identity_of_run(args, texts):
    """What the result depends on."""
    manifest = manifest_of(args.model)
    return {"model": manifest["map_digest"], "source_fingerprint": manifest["source_fingerprint"],
            "text": digest_of_tokens([ids for text in texts for ids in text]),
            "length": args.length, "batch": args.batch, "sampled": args.sampled, "seed": args.seed,
            "optimizer": "muon", "rate": args.rate, "router_rate": args.router_rate,
            "bf16": uses_bf16(args.precision, args.device),
            **({"wanted_steps": args.steps} if args.steps else {"minutes": args.minutes})}


def already_done(args, identity):
    output = pathlib.Path(args.output)
    if args.force or not output.exists():
        return False
    try:
        there = manifest_of(output).get("recovered") or {}
    except InputError as error:
        raise UsageError(f"{output} exists and is something else ({error}); --force replaces it") \
            from None
    differing = sorted(name for name in identity if there.get(name) != identity[name])
    if differing:
        raise UsageError(f"{output} exists and was made otherwise (other {', '.join(differing)});"
                         " --force replaces it")
    return True


def check_models(args):
    """Everything that speaks against the models, before hours of work: UsageError for one that cannot be
    trained here, InputError for a teacher that it was not made from."""
    manifest = manifest_of(args.model)
    if "recovered" in manifest:
        raise UsageError(f"{args.model} was trained by moefy recover before; begin from the model that"
                         " moefy convert made, with more --minutes")
    require_trainable(args.model, manifest["options"]["host"])
    student, teacher = read_config(args.model), read_config(args.teacher)
    for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
        if student.get(name) != teacher.get(name):
            raise InputError(f"--teacher {args.teacher}: its {name} is {teacher.get(name)}, that of"
                             f" {args.model} {student.get(name)}")
    for config in (student, teacher):
        require_plain_head(config)
    if not args.no_verify and not was_made_from(manifest, args.teacher, args.architecture):
        raise InputError(f"--teacher {args.teacher}: {args.model} was made from another model, or its"
                         " weights or config.json have changed since; name the dense model that moefy"
                         " convert was given")


def begin(args, ranks, journal, progress):
    """(Training as far as the journal knows it, text of the dense model's own or None); collective."""
    dtype = torch.bfloat16 if uses_bf16(args.precision, args.device) else torch.float32
    teacher = ranks.together(lambda: load_model(args.teacher, dtype=dtype).to(args.device))
    started = time.monotonic()
    sampled = ranks.first(lambda: own_text(args, teacher, journal, progress))
    seconds = time.monotonic() - started
    training = ranks.together(lambda: Training(
        args, load_model(args.model).to(args.device), teacher, ranks))
    training.seconds = seconds
    state = ranks.together(journal.load)
    if state:
        training.restore(state)
    return training, sampled


def own_text(args, teacher, journal, progress):
    """int64 [count, length] that the dense model writes, or wrote before; None without --sampled."""
    if args.sampled == 0:
        return None
    return journal.array("sampled", lambda: sample_text(
        teacher, load_tokenizer(args.teacher), args.sampled, args.length, args.seed, progress))


def run(args, out):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    keep_freed_memory()
    with Ranks(args.timeout) as ranks:
        if args.device == "cuda" and ranks.size > 1:
            args.device = f"cuda:{ranks.local_rank}"
        ranks.first(lambda: check_models(args))
        texts = ranks.together(lambda: read_texts(args, load_tokenizer(args.teacher)))
        identity = ranks.together(lambda: identity_of_run(args, texts))
        identity["ranks"] = ranks.size
        if ranks.first(lambda: already_done(args, identity)):
            out.info(f"{args.output}: already done")
            return
        journal = ranks.first(lambda: Journal(args.output, identity, args.force))
        progress = Progress.factory(args)
        try:
            training, sampled = begin(args, ranks, journal, progress)
        except BaseException:
            if ranks.rank == 0:
                journal.remove_if_empty()
            raise
        if training.step_number:
            out.info(f"resuming after {training.step_number} steps, {training.seconds:.0f} s of"
                     " training")
        out.info(f"{sum(map(len, texts))} sequences of {args.length} tokens,"
                 f" {'bf16' if identity['bf16'] else 'fp32'} products")
        train(training, Schedule(texts, sampled, args.seed), args, journal, progress)
        record = record_of(args, identity, training, ranks)
        ranks.first(lambda: write_output(training.weights.named(), args.model, args.output, record))
        if ranks.rank == 0:
            journal.remove()
        out.result({"output": args.output, **record},
                   f"{args.output}: {record['steps']} steps, {record['seconds']:.0f} s, loss"
                   f" {record['loss_at_the_end'] or 0:.4f}\n"
                   f"next: moefy evaluate {args.teacher} {args.model} {args.output} --text FILE")
