"""Distillation of a dense model into a converted one: what learns, how, and from which text."""

import contextlib
import time

import numpy as np
import torch

from .devices import uses_bf16
from .distillation import divergence, last_hidden
from .errors import InputError
from .orthogonal_updates import OrthogonalUpdates
from .sparse_ffn import SparseFfn, expert_matrices, moe_blocks

WARM_UP_STEPS = 8
FINAL_RATE = 0.05  # of the learning rate, at the end of the linear decay
CHECKPOINT_SECONDS = 60.0
LOSS_WINDOW = 16  # steps that the shown loss is a mean of


def require_plain_head(config):
    """InputError for models (by their config.json) whose head does more than a product: the loss would not
    know their logits."""
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if config.get(name) not in (None, 1, 1.0):
            raise InputError(f"{config.get('model_type')}: its {name} is not supported here")


def prepared(model, bf16, device):
    """A loaded model as a training step runs it, in bf16 or fp32, nothing learning yet."""
    model.requires_grad_(False)
    if torch.device(device).type == "cpu":
        model.set_attn_implementation("eager")  # its backward pass is several times as fast there
    return model.to(torch.bfloat16 if bf16 else torch.float32)


class Schedule:
    """Which sequences a step learns from: the texts take turns, so that long ones do not drown short
    ones; each in a new order every time it is used up. Text of the model's own, if there is any, takes
    every other turn."""

    def __init__(self, texts, sampled, seed):
        """texts: int64 [count, length] each; sampled: one such array, or None."""
        self.texts, self.sampled, self.seed = texts, sampled, seed

    def sequence(self, number):
        if self.sampled is None:
            return self._of_texts(number)
        turn, own = divmod(number, 2)
        return self._drawn(self.sampled, len(self.texts), turn) if own else self._of_texts(turn)

    def _of_texts(self, number):
        turn, text = divmod(number, len(self.texts))
        return self._drawn(self.texts[text], text, turn)

    def _drawn(self, sequences, text, turn):
        round_, place = divmod(turn, len(sequences))
        order = np.random.default_rng([self.seed, text, round_]).permutation(len(sequences))
        return sequences[order[place]]

    def batch(self, first, count):
        """int64 [count, length]: sequences number first, first + 1, …"""
        return np.stack([self.sequence(number) for number in range(first, first + count)])


class Weights:
    """The weights that learn: what a model computes with, fp32 values behind it, and their optimizers."""

    def __init__(self, student, args):
        """student: in fp32 still."""
        names = {parameter: name for name, parameter in student.named_parameters()}
        blocks = [block for _, block in moe_blocks(student)]
        matrices, as_stack = zip(*(matrix for block in blocks for matrix in expert_matrices(block)))
        routers = [block.gate.weight for block in blocks]
        self.used = [*matrices, *routers]
        self.names = [names[parameter] for parameter in self.used]
        self.exact = [torch.nn.Parameter(p.detach().float().clone()) for p in self.used]
        self.rate = args.rate
        self.matrices = OrthogonalUpdates(self.exact[: len(matrices)], as_stack)
        self.routers = torch.optim.AdamW(
            [{"params": [exact], "base": args.router_rate * float(exact.detach().std())}
             for exact in self.exact[len(matrices):]],
            lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def take_gradients(self):
        """Moves the gradients of the last backward pass to the fp32 values. Routers have none where every
        expert runs for every token: there is no choice to learn."""
        for exact, used in zip(self.exact, self.used):
            exact.grad = None if used.grad is None else used.grad.float()
            used.grad = None

    def update(self, rate):
        """One step; rate: share of the learning rates."""
        self.matrices.step(self.rate * rate)
        for group in self.routers.param_groups:
            group["lr"] = group["base"] * rate
        self.routers.step()
        self.hand_over()

    def hand_over(self):
        """The model computes with the present values from now on."""
        with torch.no_grad():
            for exact, used in zip(self.exact, self.used):
                exact.grad = None
                used.copy_(exact)

    def named(self):
        """name of each parameter in the student -> its fp32 value."""
        return {name: exact.detach() for name, exact in zip(self.names, self.exact)}

    def state(self):
        return {"values": [exact.detach().cpu() for exact in self.exact],
                "matrices": self.matrices.state_dict(), "routers": self.routers.state_dict()}

    def restore(self, state):
        with torch.no_grad():
            for exact, value in zip(self.exact, state["values"]):
                exact.copy_(value)
        self.matrices.load_state_dict(state["matrices"])
        self.routers.load_state_dict(state["routers"])
        self.hand_over()


class Training:
    """Student, teacher and optimiser on one rank."""

    def __init__(self, args, student, teacher, ranks):
        """student, teacher: as loaded, the student in fp32, on the device of `args`."""
        bf16 = uses_bf16(args.precision, args.device)
        self.ranks, self.device = ranks, args.device
        self.weights = Weights(student, args)
        self.student = prepared(student, bf16, args.device)
        self.teacher = prepared(teacher, bf16, args.device)
        for parameter in self.weights.used:
            parameter.requires_grad_(True)
        for _, block in moe_blocks(student):
            block.gate.float()  # a choice is not made in bf16
        self.weights.hand_over()  # to the gates unrounded, as after every update
        self.step_number, self.seconds, self.losses = 0, 0.0, []
        self.whole = True  # False while a step is half done

    def step(self, ids, rate):
        """Learns from sequences [batch, length]; collective. rate: share of the learning rates."""
        ids = torch.as_tensor(ids).to(self.device)
        with torch.no_grad():
            target = last_hidden(self.teacher, ids)
        loss = divergence(last_hidden(self.student, ids), self.student.get_output_embeddings(),
                          target, self.teacher.get_output_embeddings())
        loss.backward()
        self.weights.take_gradients()
        self.average_gradients()
        loss = float(loss.detach())
        if not np.isfinite(loss):
            raise InputError(f"step {self.step_number}: the loss is not finite; a smaller --rate may"
                             " help")
        self.whole = False
        self.weights.update(rate)
        self.losses = [*self.losses[-(LOSS_WINDOW - 1):], loss]
        self.step_number += 1
        self.whole = True

    def average_gradients(self):
        if self.ranks.size == 1:
            return
        # The same parameters have one on every rank.
        gradients = [exact.grad for exact in self.weights.exact if exact.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.ranks.sum(flat)
        flat /= self.ranks.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))

    def state(self):
        return {**self.weights.state(), "step": self.step_number, "seconds": self.seconds,
                "losses": self.losses}

    def restore(self, state):
        self.weights.restore(state)
        self.step_number, self.seconds = state["step"], state["seconds"]
        self.losses = state["losses"]

    def routed(self):
        """A context in which the student's blocks can learn."""
        stack = contextlib.ExitStack()
        for _, block in moe_blocks(self.student):
            stack.enter_context(SparseFfn(block))
        return stack


def rate_of(done, step):
    """Warm-up over the first steps, then linear decay; done: share of the training, 0 … 1."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (1 - (1 - FINAL_RATE) * min(1.0, done))


def train(training, schedule, args, journal, progress):
    """Runs until --steps or --minutes are over; collective."""
    ranks = training.ranks
    total = args.steps or round(args.minutes * 60)
    bar = progress("recover", total, "steps" if args.steps else "seconds")
    bar.done = training.step_number if args.steps else int(training.seconds)
    saved = time.monotonic()
    with training.routed():
        try:
            while True:
                # Rank 0's clock is everybody's.
                seconds = ranks.first(lambda: training.seconds)
                done = training.step_number / total if args.steps else seconds / total
                if done >= 1:
                    break
                begin = time.monotonic()
                first = (training.step_number * ranks.size + ranks.rank) * args.batch
                ids = schedule.batch(first, args.batch)
                ranks.together(lambda: training.step(ids, rate_of(done, training.step_number)))
                training.seconds += time.monotonic() - begin
                bar.done = (training.step_number if args.steps else int(training.seconds)) - 1
                bar.advance(f"loss {np.mean(training.losses):.4f}")
                if ranks.rank == 0 and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    journal.save(training.state())
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if ranks.rank == 0 and training.whole:  # else the last checkpoint counts
                journal.save(training.state())
            raise
    bar.finish()
