"""The divergence and its gradient against plain autograd; text drawn from a model."""

import pytest
import torch
from torch.nn import functional


@pytest.mark.parametrize("tokens", [1, 5, 300])  # the last one takes several pieces
@pytest.mark.parametrize("bias", [False, True])
def test_divergence_and_gradient_are_those_of_the_formula(tokens, bias):
    from moefy.distillation import divergence

    torch.manual_seed(0)
    heads = [torch.nn.Linear(6, 11, bias=bias) for _ in range(2)]
    hidden, target = torch.randn(tokens, 6, requires_grad=True), torch.randn(tokens, 6)

    loss = divergence(hidden, heads[0], target, heads[1])
    (3 * loss).backward()
    found, hidden.grad = hidden.grad, None
    expected = functional.kl_div(heads[0](hidden).log_softmax(-1), heads[1](target).log_softmax(-1),
                                 reduction="batchmean", log_target=True)
    (3 * expected).backward()

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, hidden.grad)


def test_equal_distributions_do_not_diverge():
    from moefy.distillation import divergence

    head = torch.nn.Linear(4, 7)
    hidden = torch.randn(3, 4, requires_grad=True)
    loss = divergence(hidden, head, hidden.detach(), head)
    loss.backward()
    assert float(loss) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(hidden.grad, torch.zeros(3, 4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3"])
def test_heads_make_the_logits_that_the_model_makes(tiny, family):
    from moefy.distillation import last_hidden
    from moefy.models import load_model

    model = load_model(str(tiny(family)))
    ids = torch.arange(24).reshape(2, 12) % 29 + 3
    with torch.no_grad():
        logits = model.get_output_embeddings()(last_hidden(model, ids))
        torch.testing.assert_close(logits.view(2, 12, -1), model(input_ids=ids).logits)


def test_tokens_are_drawn_by_their_probability():
    from moefy.sampling import draw

    chances = torch.tensor([[0.5, 0.0, 0.2, 0.3], [0.0, 0.0, 0.0, 1.0]])
    drawn = draw(chances.log().repeat(20_000, 1), torch.Generator().manual_seed(1)).view(-1, 2)
    counts = torch.bincount(drawn[:, 0], minlength=4) / 20_000
    # Four deviations of a share of 20 000 draws are below 0.015.
    torch.testing.assert_close(counts, chances[0], rtol=0, atol=0.015)
    assert counts[1] == 0 and (drawn[:, 1] == 3).all()


def test_attention_of_a_bf16_writer_is_computed_in_fp32():
    from moefy.sampling import Fp32Attention

    attend = torch.nn.functional.scaled_dot_product_attention
    query, key, value = torch.randn(3, 2, 1, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    hides = torch.ones(5, 5).tril().bool()
    exact = attend(query.float(), key.float(), value.float(), attn_mask=hides).bfloat16()
    bias = torch.zeros(5, 5).masked_fill(~hides, float("-inf")).bfloat16()
    with Fp32Attention():
        found = attend(query, key, value=value, attn_mask=hides)
        with_bias = attend(query, key, value, bias)
    assert torch.equal(found, exact) and torch.equal(with_bias, exact)


def test_texts_begin_in_turn_as_texts_do_and_with_any_word():
    from types import SimpleNamespace

    from moefy.sampling import first_tokens

    class Tokenizer(SimpleNamespace):
        def __len__(self):
            return 8

    generator = torch.Generator().manual_seed(0)
    ids = first_tokens(Tokenizer(bos_token_id=1, eos_token_id=2, all_special_ids=[1, 2]), 400, generator)
    assert ids.shape == (400, 1) and ids.dtype == torch.int64
    assert ids[::2].unique().tolist() == [1]
    assert ids[1::2].unique().tolist() == [0, 3, 4, 5, 6, 7]
    ids = first_tokens(Tokenizer(bos_token_id=None, eos_token_id=2, all_special_ids=[2]), 4, generator)
    assert ids[::2].unique().tolist() == [2]
    ids = first_tokens(Tokenizer(bos_token_id=None, eos_token_id=None, all_special_ids=[]), 400, generator)
    assert len(ids.unique()) == 8
