"""`moefy recover`: distils the dense model into a converted one. All FFN weights and routers learn, by
a straight-through gradient through the choice of experts; everything else stays as it is."""

import contextlib
import json
import pathlib
import shutil
import time

import numpy as np
import torch
from torch.nn import functional

from .errors import InputError, IoError, UsageError
from .evaluate import manifest_of
from .memory import keep_freed_memory
from .models import load_model, load_tokenizer, read_config
from .progress import Progress
from .ranks import Ranks
from .sparse_ffn import SparseFfn, moe_blocks, shared_parameters
from .texts import digest_of_tokens, read_text, to_sequences

DESCRIPTION = "distil the dense model into a converted one: quality back for some minutes of training"
USAGE = "OUT -o OUT2 --teacher MODEL --text FILE…"
EXAMPLE = "moefy recover OUT --teacher MODEL --text book.txt -o OUT2 --minutes 6"
RARE_OPTIONS = {"steps", "rate", "router-rate", "precision"}  # only on --help-all
DATA_PARALLEL = True
WARM_UP_STEPS = 8
FINAL_RATE = 0.05  # of the learning rate, at the end of the linear decay
CHECKPOINT_SECONDS = 60.0
LOSS_WINDOW = 16  # steps that the shown loss is a mean of


def add_options(parser):
    parser.add_argument("model", metavar="OUT", help="directory made by moefy convert")
    parser.add_argument("--teacher", required=True, metavar="MODEL",
                        help="the dense model it was made from")
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE",
                        help="texts (plain, .html, .jsonl) or folders of them, as many domains as"
                             " possible")
    parser.add_argument("-o", "--output", required=True, metavar="OUT2",
                        help="directory for the trained model, of the same layout")
    parser.add_argument("--minutes", type=float, default=6.0, metavar="M",
                        help="training time (default 6)")
    parser.add_argument("--steps", type=int, default=0, metavar="N",
                        help="so many steps instead, whatever time they take")
    parser.add_argument("--length", type=int, default=512, metavar="N",
                        help="tokens a sequence; one sequence a step and rank (default 512)")
    parser.add_argument("--rate", type=float, default=2e-4, metavar="LR",
                        help="learning rate of the FFN weights (default 2e-4)")
    parser.add_argument("--router-rate", type=float, default=1e-3, metavar="LR",
                        help="of a router, times the deviation of its weights (default 1e-3)")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"),
                        help="of the products; weights stay fp32 (default auto: bf16 where the"
                             " processor multiplies it)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, …")


def check(args):
    for name in ("minutes", "rate", "router_rate"):
        if not getattr(args, name) > 0:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(args, name)} is not above 0")
    if args.steps < 0:
        raise UsageError(f"--steps {args.steps} is negative")
    if args.length < 2:
        raise UsageError(f"--length {args.length} is below 2")
    output = pathlib.Path(args.output)
    if not output.resolve().parent.is_dir():
        raise UsageError(f"{output}: no such folder above it")
    if output.resolve() in (pathlib.Path(args.model).resolve(), pathlib.Path(args.teacher).resolve()):
        raise UsageError(f"-o {output} is the model that is read")


def uses_bf16(precision, device):
    """Whether products are taken in bf16."""
    if precision != "auto":
        return precision == "bf16"
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def read_texts(args, tokenizer):
    """int64 [count, length] of each text."""
    return [to_sequences(tokenizer, read_text(path), args.length, path) for path in args.text]


class Schedule:
    """Which sequence a step learns from: the texts take turns, so that long ones do not drown short
    ones; each in a new order every time it is used up."""

    def __init__(self, texts, seed):
        self.texts, self.seed = texts, seed

    def sequence(self, number):
        turn, text = divmod(number, len(self.texts))
        sequences = self.texts[text]
        round_, place = divmod(turn, len(sequences))
        order = np.random.default_rng([self.seed, text, round_]).permutation(len(sequences))
        return sequences[order[place]]


def distillation_loss(student, teacher):
    """KL(teacher || student) of next-token distributions, mean over tokens; logits [tokens, vocab]."""
    return functional.kl_div(functional.log_softmax(student.float(), -1),
                             functional.log_softmax(teacher.float(), -1),
                             reduction="batchmean", log_target=True)


class Training:
    """Student, teacher and optimiser on one rank."""

    def __init__(self, args, student, teacher, ranks):
        self.student, self.teacher, self.ranks = student, teacher, ranks
        self.device = args.device
        self.bf16 = uses_bf16(args.precision, args.device)
        self.blocks = moe_blocks(student)
        self.parameters, groups = [], []
        student.requires_grad_(False)
        for _, block in self.blocks:
            experts = [block.experts.gate_up_proj, block.experts.down_proj, *shared_parameters(block)]
            groups.append({"params": experts, "base": args.rate})
            router = block.gate.weight
            groups.append({"params": [router], "base": args.router_rate * float(router.std())})
            self.parameters += [*experts, router]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
        self.step_number, self.seconds, self.losses = 0, 0.0, []

    def precision(self):
        if self.bf16:
            return torch.autocast(torch.device(self.device).type, torch.bfloat16)
        return contextlib.nullcontext()

    def step(self, ids, rate):
        """One sequence [length]; rate: of each group's learning rate."""
        ids = torch.as_tensor(ids)[None].to(self.device)
        with self.precision():
            with torch.no_grad():
                target = self.teacher(input_ids=ids, use_cache=False).logits[0]
            loss = distillation_loss(self.student(input_ids=ids, use_cache=False).logits[0], target)
        self.optimizer.zero_grad()
        loss.backward()
        self.average_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * rate
        self.optimizer.step()
        self.losses = [*self.losses[-(LOSS_WINDOW - 1):], float(loss.detach())]
        if not np.isfinite(self.losses[-1]):
            raise InputError(f"step {self.step_number}: the loss is not finite; a smaller --rate may"
                             " help")
        self.step_number += 1

    def average_gradients(self):
        if self.ranks.size == 1:
            return
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in self.parameters])
        self.ranks.sum(flat)
        flat /= self.ranks.size
        for parameter, part in zip(self.parameters,
                                   flat.split([p.numel() for p in self.parameters])):
            parameter.grad.copy_(part.view_as(parameter))

    def state(self):
        return {"parameters": [parameter.detach().cpu() for parameter in self.parameters],
                "optimizer": self.optimizer.state_dict(), "step": self.step_number,
                "seconds": self.seconds, "losses": self.losses}

    def restore(self, state):
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state["parameters"]):
                parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_number, self.seconds = state["step"], state["seconds"]
        self.losses = state["losses"]


class Journal:
    """OUT2.journal/: what the training depends on, and its last checkpoint."""

    def __init__(self, output, depends_on, force):
        self.folder = pathlib.Path(f"{output}.journal")
        self.output = pathlib.Path(output)
        if force:
            shutil.rmtree(self.folder, ignore_errors=True)
        there = self.folder / "fingerprint.json"
        if there.exists():
            before = json.loads(there.read_text())
            differing = sorted(name for name in {*before, *depends_on}
                               if before.get(name) != depends_on.get(name))
            if differing:
                raise UsageError(f"{self.folder} is of another run (other {', '.join(differing)});"
                                 " --force starts anew")
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            there.write_text(json.dumps(depends_on, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise IoError(f"{self.folder}: cannot write: {error.strerror}") from None

    def load(self):
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:  # torch raises many kinds
            raise InputError(f"{path}: damaged ({type(error).__name__}); --force starts anew") from None

    def save(self, state):
        part = self.folder / "checkpoint.part"
        try:
            torch.save(state, part)
            part.replace(self.folder / "checkpoint.pt")
        except (OSError, RuntimeError) as error:
            raise IoError(f"{self.folder}: cannot write the checkpoint: {error}") from None

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def rate_of(done, step):
    """Warm-up over the first steps, then linear decay; done: share of the training, 0 … 1."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (1 - (1 - FINAL_RATE) * min(1.0, done))


def train(training, texts, args, journal, progress):
    """Runs until --steps or --minutes are over; collective."""
    ranks = training.ranks
    schedule = Schedule(texts, args.seed)
    total = args.steps or round(args.minutes * 60)
    bar = progress("recover", total, "steps" if args.steps else "seconds")
    bar.done = training.step_number if args.steps else int(training.seconds)
    saved = time.monotonic()
    with contextlib.ExitStack() as stack:
        for _, block in training.blocks:
            stack.enter_context(SparseFfn(block))
        try:
            while True:
                # Rank 0's clock is everybody's.
                seconds = ranks.first(lambda: training.seconds)
                done = training.step_number / total if args.steps else seconds / total
                if done >= 1:
                    break
                begin = time.monotonic()
                number = training.step_number * ranks.size + ranks.rank
                ids = schedule.sequence(number)
                ranks.together(lambda: training.step(ids, rate_of(done, training.step_number)))
                training.seconds += time.monotonic() - begin
                bar.done = (training.step_number if args.steps else int(training.seconds)) - 1
                bar.advance(f"loss {np.mean(training.losses):.4f}")
                if ranks.rank == 0 and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    journal.save(training.state())
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if ranks.rank == 0:
                journal.save(training.state())
            raise
    bar.finish()


def saved_tensors(student, folder):
    """Writes the student by transformers into `folder` and returns name -> (file, dtype) of it."""
    student.save_pretrained(folder)
    return tensors_of(folder)


def tensors_of(folder):
    """name -> (file, dtype of the file) of all tensors of a model directory."""
    from safetensors import safe_open

    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                found[name] = (path.name, file.get_slice(name).get_dtype())
    return found


def write_weights(student, source, target):
    """The student's weights under the names, in the files and in the dtypes of `source`; what was not
    trained is copied from there."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    scratch = target / "scratch"
    now = saved_tensors(student, scratch)
    before = tensors_of(source)
    if set(now) != set(before):
        odd = sorted(set(now) ^ set(before))
        raise InputError(f"{source}: transformers would save other tensors ({', '.join(odd[:3])}…);"
                         " only the classic layout can be trained")
    for file in sorted({file for file, _ in before.values()}):
        tensors = {}
        with safe_open(source / file, "pt") as old:
            metadata = old.metadata()
            for name in old.keys():
                tensors[name] = old.get_tensor(name)
                with safe_open(scratch / now[name][0], "pt") as new:
                    value = new.get_tensor(name)
                if ".mlp." in name or "block_sparse_moe" in name or name in trained:
                    tensors[name] = value.to(tensors[name].dtype).contiguous()
        save_file(tensors, target / file, metadata=metadata)
    shutil.rmtree(scratch)


def describe(source, target, record):
    """Everything beside the weights: copied, and marked as trained."""
    for path in sorted(source.iterdir()):
        if path.is_dir() or path.suffix == ".safetensors":
            continue
        shutil.copyfile(path, target / path.name)
    (target / "moefy").mkdir()
    manifest = manifest_of(source)
    manifest["recovered"] = record  # verify and restore look for it
    (target / "moefy" / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    card = target / "README.md"
    text = card.read_text() if card.exists() else ""
    card.write_text(text.rstrip() + f"""

## Recovered

Trained after the conversion by `moefy recover`: {record["steps"]} steps of {record["tokens_a_step"]}
tokens of distillation from the dense model. Experts and routers are no longer the dense model's own
weights, so neither `moefy verify` nor `moefy restore` applies; both do to the model it began from.
""")


def write_output(training, args, record):
    """OUT2, complete or not at all."""
    source, output = pathlib.Path(args.model), pathlib.Path(args.output)
    staging = output.with_name(output.name + ".unfinished")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        write_weights(training.student, source, staging)
        describe(source, staging, record)
        if output.exists():
            shutil.rmtree(output)
        staging.rename(output)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise IoError(f"{output}: cannot write: {error.strerror or error}") from None
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def record_of(args, identity, training, ranks):
    """What the manifest says of the training."""
    return {**identity, "steps": training.step_number, "ranks": ranks.size,
            "tokens_a_step": args.length * ranks.size, "seconds": round(training.seconds, 1),
            "loss_at_the_end": float(np.mean(training.losses)) if training.losses else None}


def identity_of_run(args, texts):
    """What the result depends on."""
    manifest = manifest_of(args.model)
    if "recovered" in manifest:
        raise UsageError(f"{args.model} was trained by moefy recover before; begin from the model that"
                         " moefy convert made, with more --minutes")
    return {"model": manifest["map_digest"], "source_fingerprint": manifest["source_fingerprint"],
            "text": digest_of_tokens([ids for text in texts for ids in text]), "length": args.length, "seed": args.seed,
            "rate": args.rate, "router_rate": args.router_rate,
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


def check_pair(args):
    """The teacher must be what the model was made from, as far as the configs can tell."""
    student, teacher = read_config(args.model), read_config(args.teacher)
    for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
        if student.get(name) != teacher.get(name):
            raise UsageError(f"--teacher {args.teacher}: its {name} is {teacher.get(name)}, that of"
                             f" {args.model} {student.get(name)}")


def run(args, out):
    check(args)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    keep_freed_memory()
    with Ranks() as ranks:
        if args.device == "cuda" and ranks.size > 1:
            args.device = f"cuda:{ranks.local_rank}"
        texts = ranks.together(lambda: read_texts(args, load_tokenizer(args.teacher)))
        identity = ranks.together(lambda: identity_of_run(args, texts))
        identity["ranks"] = ranks.size
        ranks.together(lambda: check_pair(args))
        if ranks.first(lambda: already_done(args, identity)):
            out.info(f"{args.output}: already done")
            return
        journal = ranks.first(lambda: Journal(args.output, identity, args.force))
        training = ranks.together(lambda: Training(
            args, load_model(args.model).to(args.device), load_model(args.teacher).to(args.device),
            ranks))
        state = ranks.together(journal.load)
        if state:
            training.restore(state)
            out.info(f"resuming after {training.step_number} steps, {training.seconds:.0f} s of"
                     " training")
        out.info(f"{sum(map(len, texts))} sequences of {args.length} tokens,"
                 f" {'bf16' if training.bf16 else 'fp32'} products")
        train(training, texts, args, journal, Progress.factory(args))
        record = record_of(args, identity, training, ranks)
        ranks.first(lambda: write_output(training, args, record))
        if ranks.rank == 0:
            journal.remove()
        out.result({"output": args.output, **record},
                   f"{args.output}: {record['steps']} steps, {record['seconds']:.0f} s, loss"
                   f" {record['loss_at_the_end'] or 0:.4f}\n"
                   f"next: moefy evaluate {args.teacher} {args.model} {args.output} --text FILE")
