"""How far a student's next-token distributions are from a teacher's, without ever holding the logits of
more than a few tokens."""

import torch

ROWS = 128  # tokens whose logits are held at once
CACHED_ROWS = 8  # of them, that the steps between logits and gradient go through while a cache holds them


def _difference(student, teacher):
    """KL(teacher || student), summed over rows of logits; the student's become softmax(student) -
    softmax(teacher), its gradient."""
    log_chances = teacher.float().log_softmax(-1)
    chances = log_chances.exp()
    log_student = student.float().log_softmax(-1)
    total = float(torch.vdot(chances.view(-1), log_chances.sub_(log_student).view(-1)))
    student.copy_(log_student.exp_().sub_(chances))
    return total


class _Divergence(torch.autograd.Function):
    """The gradient with respect to the hidden states is made on the way forward: the logits it needs
    are there, and a batch of them (tokens times vocabulary) would not fit into any cache."""

    @staticmethod
    def forward(ctx, hidden, head, target, target_head):
        total = 0.0
        gradient = torch.empty_like(hidden)
        for rows, targets, out in zip(hidden.split(ROWS), target.split(ROWS), gradient.split(ROWS)):
            logits = head(rows)
            for student, teacher in zip(logits.split(CACHED_ROWS),
                                        target_head(targets).split(CACHED_ROWS)):
                total += _difference(student, teacher)
            torch.matmul(logits.to(head.weight.dtype), head.weight, out=out)
        ctx.save_for_backward(gradient.div_(len(hidden)))
        return hidden.new_tensor(total / len(hidden), dtype=torch.float32)

    @staticmethod
    def backward(ctx, outer):
        gradient, = ctx.saved_tensors
        return gradient * outer.to(gradient.dtype), None, None, None


def divergence(hidden, head, target, target_head):
    """KL(teacher || student) of next-token distributions, mean over tokens, differentiable with
    respect to `hidden` alone.

    hidden, target: last hidden states [tokens, width] of student and teacher; head, target_head: the
    linear modules that make logits of them."""
    return _Divergence.apply(hidden, head, target, target_head)


def last_hidden(model, ids):
    """[tokens, width]: what a causal language model hands to its head for token ids [batch, length]."""
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return hidden.reshape(-1, hidden.shape[-1])
