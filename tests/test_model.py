"""The model's mathematics: against PyTorch's own attention, against GPT-2, and against the future."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from utils.model import GPT, Block, FeedForward, GPTConfig, Head, LanguageModel, MultiHeadAttention

B, T, C, H, V = 3, 7, 20, 6, 11   # all different, so that a swapped axis cannot hide


def small_gpt(**changes):
    torch.manual_seed(0)
    return GPT(GPTConfig(**{"vocab_size": V, "block_size": 9, "n_layer": 2, "n_head": 4, "n_embd": C, **changes})).eval()


def test_head_is_scaled_dot_product_attention():
    torch.manual_seed(0)
    head, x = Head(C, H, block_size=9), torch.randn(B, T, C)
    expected = F.scaled_dot_product_attention(head.query(x), head.key(x), head.value(x), is_causal=True)
    assert_close(head(x), expected)


def test_multi_head_is_the_heads_side_by_side():
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(C, n_head=5, head_size=H, block_size=9), torch.randn(B, T, C)
    joined = torch.cat([head(x) for head in attention.heads], dim=-1)
    assert joined.shape == (B, T, 5 * H)
    assert_close(attention(x), attention.proj(joined))


def test_earlier_forms_leave_out_what_came_later():
    assert isinstance(MultiHeadAttention(C, 2, H, 9, proj=False).proj, nn.Identity)
    chapter_08 = [m for m in FeedForward(C, widen=1, proj=False).net if not isinstance(m, (nn.Identity, nn.Dropout))]
    assert [type(m) for m in chapter_08] == [nn.Linear, nn.ReLU]
    assert isinstance(Block(C, 4, 9, norm=nn.Identity).ln1, nn.Identity)


@pytest.mark.parametrize("changed", range(T))
def test_the_future_changes_nothing_before_it(changed):
    model = small_gpt()
    idx = torch.randint(V, (B, T))
    other = idx.clone()
    other[:, changed] = (other[:, changed] + 1) % V
    before, after = model(idx)[0], model(other)[0]
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.equal(before[:, changed:], after[:, changed:])


def test_rows_of_a_batch_do_not_talk():
    model, idx = small_gpt(), torch.randint(V, (B, T))
    together = model(idx)[0]
    for b in range(B):
        assert_close(model(idx[b : b + 1])[0], together[b : b + 1])


def test_gpt_gives_the_logits_of_an_independent_gpt2():
    """Hugging Face's GPT-2 with ReLU, separate output weights, and our weights copied over."""
    transformers = pytest.importorskip("transformers")
    ours, c = small_gpt(), small_gpt().config
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=V, n_positions=c.block_size, n_embd=C, n_layer=c.n_layer, n_head=c.n_head,
        activation_function="relu", tie_word_embeddings=False, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
    )).eval()
    body = ours.body
    with torch.no_grad():
        theirs.transformer.wte.weight.copy_(ours.token_embedding.weight)
        theirs.transformer.wpe.weight.copy_(ours.position_embedding.weight)
        for mine, its in zip(body, theirs.transformer.h):
            for kind, part in enumerate(("query", "key", "value")):   # theirs are one matrix, inputs first
                stacked = torch.cat([getattr(head, part).weight for head in mine.sa.heads])   # (C, C)
                its.attn.c_attn.weight[:, kind * C : (kind + 1) * C] = stacked.T
            its.attn.c_attn.bias.zero_()
            for linear, conv in (
                (mine.sa.proj, its.attn.c_proj), (mine.ffwd.net[0], its.mlp.c_fc), (mine.ffwd.net[2], its.mlp.c_proj)
            ):
                conv.weight.copy_(linear.weight.T)
                conv.bias.copy_(linear.bias)
            its.ln_1.load_state_dict(mine.ln1.state_dict())
            its.ln_2.load_state_dict(mine.ln2.state_dict())
        theirs.transformer.ln_f.load_state_dict(body[-1].state_dict())
        theirs.lm_head.weight.copy_(ours.lm_head.weight)
    idx = torch.randint(V, (B, c.block_size))
    assert_close(ours(idx)[0] - ours.lm_head.bias, theirs(idx).logits, rtol=1e-4, atol=1e-5)


def test_loss_is_the_mean_surprise():
    model, idx, targets = small_gpt(), torch.randint(V, (B, T)), torch.randint(V, (B, T))
    logits, loss = model(idx, targets)
    probs = logits.softmax(-1)
    surprises = [-probs[b, t, targets[b, t]].log() for b in range(B) for t in range(T)]
    assert_close(loss, torch.stack(surprises).mean())


def test_generate_is_seeded_and_keeps_the_prompt():
    model, prompt = small_gpt(), torch.randint(V, (2, 3))
    texts = [model.generate(prompt, 20, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])
    assert texts[0].shape == (2, 23) and torch.equal(texts[0][:, :3], prompt)


def test_a_low_temperature_is_greedy():
    model, prompt = small_gpt(), torch.randint(V, (1, 3))
    out = model.generate(prompt, 5, temperature=1e-4)
    for t in range(3, 8):
        assert out[0, t] == model(out[:, :t])[0][0, -1].argmax()


def test_dropout_only_in_training():
    model, idx = small_gpt(dropout=0.5), torch.randint(V, (B, T))
    assert torch.equal(model(idx)[0], model(idx)[0])
    model.train()
    assert not torch.equal(model(idx)[0], model(idx)[0])


@pytest.mark.parametrize("make, error, words", [
    (lambda: Head(C, 0, 9), ValueError, "head_size is 0"),
    (lambda: Head(C, -2, 9), ValueError, "head_size is -2"),
    (lambda: small_gpt(n_head=3), ValueError, "n_embd 20 is not divisible by n_head 3"),
    (lambda: small_gpt()(torch.zeros(1, 10, dtype=torch.long)), ValueError, "block_size = 9"),
    (lambda: small_gpt()(torch.zeros(5, dtype=torch.long)), ValueError, r"shape \(5,\)"),
    (lambda: small_gpt()(torch.zeros(1, 0, dtype=torch.long)), ValueError, "T at least 1"),
    (lambda: small_gpt()(torch.full((1, 2), V)), IndexError, "only 0 to 10"),
    (lambda: small_gpt()(torch.full((1, 2), -1)), IndexError, "from -1"),
    (lambda: small_gpt()(torch.zeros(2, 3, dtype=torch.long), torch.zeros(3, 2, dtype=torch.long)), ValueError, r"\(3, 2\)"),
    (lambda: small_gpt().generate(torch.zeros(1, 1, dtype=torch.long), 1, temperature=0), ValueError, "temperature is 0"),
    (lambda: small_gpt().generate(torch.zeros(1, 1, dtype=torch.long), 1, temperature=-1), ValueError, "temperature is -1"),
])
def test_bad_input_gets_a_clear_error(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_divisible_suggestion_is_divisible():
    with pytest.raises(ValueError) as error:
        small_gpt(n_embd=20, n_head=3)
    assert int(str(error.value).split()[-1]) % 3 == 0


def test_skeleton_takes_any_body():
    model = LanguageModel(V, C, 9, nn.Identity())
    assert model(torch.randint(V, (B, T)))[0].shape == (B, T, V)
