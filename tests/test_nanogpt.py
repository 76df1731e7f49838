"""The batched model is the lecture's model: the same logits and gradients; its training; its cache."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from utils import checkpoint, train
from utils.data import CharTokenizer
from utils.model import GPT, GPTConfig
from utils.nanogpt import ACTIVATIONS, NanoGPT, NanoGPTConfig

B, T, C, V = 3, 7, 24, 11   # all different, so that a swapped axis cannot hide


def nano(seed=0, **changes):
    torch.manual_seed(seed)
    return NanoGPT(NanoGPTConfig(**{"vocab_size": V, "block_size": 9, "n_layer": 2, "n_head": 4, "n_embd": C, **changes}))


def lecture(seed=0):
    torch.manual_seed(seed)
    return GPT(GPTConfig(vocab_size=V, block_size=9, n_layer=2, n_head=4, n_embd=C))


def test_batched_heads_give_the_logits_and_gradients_of_single_ones():
    gpt = lecture()
    model = NanoGPT.from_heads(gpt)
    idx, targets = torch.randint(V, (B, T)), torch.randint(V, (B, T))
    (ours, loss), (theirs, expected) = model(idx, targets), gpt(idx, targets)
    assert_close(ours, theirs)
    loss.backward()
    expected.backward()
    for i, block in enumerate(gpt.body[:-1]):
        heads = block.sa.heads
        stacked = torch.cat([getattr(head, part).weight.grad for part in ("query", "key", "value") for head in heads])
        batched = model.body.blocks[i]
        assert_close(batched.attn.qkv.weight.grad, stacked)
        assert_close(batched.attn.proj.weight.grad, block.sa.proj.weight.grad)
        assert_close(batched.mlp.up.weight.grad, block.ffwd.net[0].weight.grad)
    assert_close(model.token_embedding.weight.grad, gpt.token_embedding.weight.grad)
    assert_close(model.position_embedding.weight.grad, gpt.position_embedding.weight.grad)


def test_copied_weights_are_copies():
    gpt = lecture()
    model = NanoGPT.from_heads(gpt)
    before = gpt(torch.zeros(1, 1, dtype=torch.long))[0]
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert_close(gpt(torch.zeros(1, 1, dtype=torch.long))[0], before)


def test_nanogpt_gives_the_logits_of_an_independent_gpt2():
    """Hugging Face's GPT-2 with our weights copied over: GELU, biases, tied embeddings, all heads in one matrix."""
    transformers = pytest.importorskip("transformers")
    model = nano(bias=True).eval()
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=9, n_embd=C, n_layer=2, n_head=4, activation_function="gelu",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )
    other = transformers.GPT2LMHeadModel(config).eval()
    names = {
        "token_embedding": "transformer.wte", "position_embedding": "transformer.wpe", "body.norm": "transformer.ln_f",
        "ln1": "ln_1", "ln2": "ln_2", "attn.qkv": "attn.c_attn", "attn.proj": "attn.c_proj", "mlp.up": "mlp.c_fc",
        "mlp.proj": "mlp.c_proj", "body.blocks": "transformer.h",
    }
    weights = {}
    for name, w in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        for old, new in names.items():
            name = name.replace(old, new)
        weights[name] = w.T if ".c_" in name and w.ndim == 2 else w   # its Conv1D keeps matrices transposed
    missing = other.load_state_dict(weights, strict=False)
    assert missing.missing_keys == ["lm_head.weight"] and not missing.unexpected_keys
    other.tie_weights()
    idx = torch.randint(V, (B, T))
    assert_close(model(idx)[0], other(idx).logits)


CHOICES = [
    {}, {"norm": "rms"}, {"norm": "rms", "bias": True}, {"position": "rotary"}, {"qk_norm": True}, {"attn_dropout": False, "dropout": 0.5},
    *({"activation": name} for name in ACTIVATIONS), {**train.BETTER, "init": "scaled"},   # new "zero" blocks would change nothing
]


@pytest.mark.parametrize("changed", (1, 4, T - 1))
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_future_changes_nothing_before_it(choice, changed):
    model = nano(**choice).eval()
    idx = torch.randint(V, (B, T))
    other = idx.clone()
    other[:, changed] = (other[:, changed] + 1) % V
    before, after = model(idx)[0], model(other)[0]
    assert_close(before[:, :changed], after[:, :changed], rtol=0, atol=0)
    assert not torch.equal(before[:, changed:], after[:, changed:])


def test_tied_weights_are_one_matrix_and_survive_a_checkpoint(tmp_path):
    tokenizer = CharTokenizer("abcdefghijk")
    model = nano()
    checkpoint.save(tmp_path / "m.safetensors", model, tokenizer)
    back, _, _ = checkpoint.load(tmp_path / "m.safetensors")
    assert isinstance(back, NanoGPT) and back.lm_head.weight is back.token_embedding.weight
    idx = torch.randint(V, (B, T))
    assert_close(back(idx)[0], model.eval()(idx)[0], rtol=0, atol=0)
    untied = nano(tied=False)
    assert sum(p.numel() for p in untied.parameters()) == sum(p.numel() for p in model.parameters()) + V * C + V


def test_initialization():
    n_layer = 8
    model = nano(n_layer=n_layer, n_embd=128, init="scaled")
    for name, w in model.named_parameters():
        if name.endswith("proj.weight"):
            assert math.isclose(w.std().item(), 0.02 / math.sqrt(2 * n_layer), rel_tol=0.05), name
        elif w.ndim == 2 and w.numel() > 5000:
            assert math.isclose(w.std().item(), 0.02, rel_tol=0.05), name
    _, loss = model(torch.randint(V, (99, 9)), torch.randint(V, (99, 9)))
    assert abs(loss.item() - math.log(V)) < 0.1   # a model that knows nothing, and knows it


@pytest.mark.parametrize("settings, words", [
    ({"n_head": 5}, "24 is not divisible by n_head 5"), ({"activation": "swish"}, "relu, gelu"), ({"init": "big"}, "'big'"),
    ({"norm": "batch"}, "norm is 'batch', but must be one of layer, rms"), ({"position": "sine"}, "learned, rotary"),
    ({"position": "rotary", "n_embd": 20}, "turn channels in pairs, but a head has 5 channels"),
])
def test_a_config_that_cannot_be_built(settings, words):
    with pytest.raises(ValueError, match=words):
        nano(**settings)


def test_decay_falls_on_matrices_only():
    model = nano(bias=True)
    decayed, spared = train.adamw(model, lr=1e-3).param_groups
    assert decayed["weight_decay"] == 0.1 and spared["weight_decay"] == 0.0
    assert {p.ndim for p in decayed["params"]} == {2} and {p.ndim for p in spared["params"]} == {1}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))
    norms = [p for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()]
    assert all(any(p is q for q in spared["params"]) for p in norms)


def test_the_schedule_warms_up_and_comes_down():
    factor = train.warmup_cosine(steps=100, warmup=10, floor=0.1)
    rising, falling = [factor(i) for i in range(11)], [factor(i) for i in range(10, 101)]
    assert rising == sorted(rising) and 0 < rising[0] < 0.1 and rising[-1] == 1
    assert falling == sorted(falling, reverse=True) and math.isclose(falling[-1], 0.1)
    assert math.isclose(factor(55), 0.55)


IDS = torch.randint(V, (500,), generator=torch.Generator().manual_seed(1))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def run(model, **settings):
    train.train(model, IDS, IDS[:100], **{"steps": 5, "batch_size": 12, "eval_every": 5, "eval_iters": 1, **settings})
    return weights(model)


def test_accumulated_parts_make_the_same_step_as_the_whole_batch():
    whole = run(nano(), clip=1.0)
    for parts in (2, 3, 12):
        assert_close(run(nano(), clip=1.0, accumulate=parts), whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="batch of 12 cannot be shared by 1 processes in 5 parts"):
        run(nano(), accumulate=5)


def test_the_schedule_and_the_clip_are_used():
    still = nano()
    run(still, schedule=lambda step: 0.0)
    assert_close(weights(still), weights(nano()), rtol=0, atol=0)
    sgd = nano()
    run(sgd, steps=1, optimizer=torch.optim.SGD(sgd.parameters(), lr=1.0), clip=0.01)
    assert math.isclose((weights(sgd) - weights(nano())).norm().item(), 0.01, rel_tol=1e-3)
