"""Chapter 18: the mathematics of rotary positions, norms, gates, Muon and averaged weights."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from utils import train
from utils.features import FEATURES, base_with
from utils.muon import Muon, orthogonalize
from utils.nanogpt import CausalSelfAttention, NanoGPT, NanoGPTConfig, rotary_angles, rotate

B, T, H, V = 2, 9, 6, 11
IDS = torch.randint(V, (500,), generator=torch.Generator().manual_seed(1))


def nano(**changes):
    torch.manual_seed(0)
    return NanoGPT(NanoGPTConfig(**{"vocab_size": V, "block_size": T, "n_layer": 2, "n_head": 4, "n_embd": 24, **changes}))


def run(model, steps=5, **settings):
    fixed = {"batch_size": 4, "eval_every": steps, "eval_iters": 1}
    train.train(model, IDS, IDS[:100], steps=steps, **{**fixed, **settings})
    return model


@pytest.mark.parametrize("shift", (1, 20, 90))
def test_rotary_scores_depend_on_the_distance_alone(shift):
    torch.manual_seed(0)
    q, k = torch.randn(2, B, T, H).unbind()
    cos, sin = rotary_angles(100, H)
    here, there = slice(0, T), slice(shift, shift + T)
    scores = [rotate(q, cos[at], sin[at]) @ rotate(k, cos[at], sin[at]).mT for at in (here, there)]   # (B, T, T) each
    assert_close(*scores, rtol=1e-4, atol=1e-4)
    moved = rotate(q, cos[there], sin[there]) @ rotate(k, cos[here], sin[here]).mT   # only the queries: the distance changes
    assert not torch.allclose(moved, scores[0], atol=0.1)


def test_rotary_only_turns():
    x = torch.randn(B, T, H)
    cos, sin = rotary_angles(T, H)
    turned = rotate(x, cos, sin)
    assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert_close(turned[:, 0], x[:, 0])   # position 0: not at all
    for i in range(H // 2):               # a pair at a time, as a complex number times e^(i·angle)
        pair = torch.complex(x[..., i], x[..., i + H // 2]) * torch.polar(torch.ones(T), torch.arange(T) * 10000.0 ** (-2 * i / H))
        assert_close(turned[..., i], pair.real)
        assert_close(turned[..., i + H // 2], pair.imag)


def test_qk_norm_gives_queries_and_keys_one_length_and_leaves_values():
    attention = CausalSelfAttention(NanoGPTConfig(V, T, n_embd=24, n_head=4, qk_norm=True, position="rotary"))
    qk = 100 * torch.randn(2, B, 4, T, H)
    assert_close(attention.place(qk, 0).norm(dim=-1), torch.full((2, B, 4, T), H**0.5))


def test_new_zero_blocks_change_nothing():
    model = nano(init="zero", tied=False)
    x = torch.randn(B, T, 24)
    for block in model.body.blocks:
        assert torch.equal(block(x), x)
    run(model)
    assert not torch.equal(model.body.blocks[0](x), x)   # but they learn


def test_swiglu_has_as_many_weights_as_relu():
    count = {name: sum(p.numel() for p in nano(n_embd=128, activation=name).parameters()) for name in ("relu", "swiglu")}
    assert abs(count["swiglu"] - count["relu"]) < 0.01 * count["relu"]


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (12, 12), (1, 7)])
def test_orthogonalize_keeps_the_directions_and_evens_the_sizes(shape):
    torch.manual_seed(0)
    rank = min(shape)
    U, _, Vt = torch.linalg.svd(torch.randn(shape, dtype=torch.double), full_matrices=False)
    g = U @ torch.diag(torch.logspace(0, -2, rank, dtype=torch.double)) @ Vt   # sizes a hundred times apart
    turned = U.T @ orthogonalize(g) @ Vt.T   # diagonal only where the singular vectors are the same
    assert_close(turned, torch.diag(turned.diag()), rtol=0, atol=1e-6)
    assert (turned.diag() > 0.6).all() and (turned.diag() < 1.25).all()


def test_orthogonalize_does_not_care_how_long_a_gradient_is():
    g = torch.randn(5, 8)
    assert_close(orthogonalize(1e4 * g), orthogonalize(g), rtol=1e-3, atol=1e-4)
    assert torch.equal(orthogonalize(torch.zeros(5, 8)), torch.zeros(5, 8))


@pytest.mark.parametrize("decay", [0.0, 2.0])
@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_muon_steps_like_pytorchs(shape, decay):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(shape))
    theirs = nn.Parameter(ours.detach().clone())
    start = ours.detach().clone()
    optimizers = [build([p], lr=0.02, weight_decay=decay) for build, p in ((Muon, ours), (torch.optim.Muon, theirs))]
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = (ours - start).norm()
    assert (ours - theirs).norm() < 0.03 * moved   # PyTorch computes in bfloat16


def test_muon_refuses_what_is_no_matrix():
    with pytest.raises(ValueError, match=r"shape \(3,\); give it to AdamW"):
        Muon([nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize("choice", [{}, {"bias": True}, train.BETTER], ids=str)
def test_each_parameter_has_one_optimizer(choice):
    model = nano(**choice)
    matrices, rest = ([p for group in o.param_groups for p in group["params"]] for o in train.muon(model, 1e-3))
    assert sorted(map(id, matrices + rest)) == sorted(map(id, model.parameters()))
    assert {id(model.token_embedding.weight), id(model.lm_head.weight)} <= {id(p) for p in rest}
    assert all(p.ndim == 2 for p in matrices) and matrices


def test_averaged_weights_are_the_running_mean():
    states, model = [], nano()

    class Spy(torch.optim.SGD):
        def step(self):
            super().step()
            states.append(copy.deepcopy(model.state_dict()))

    run(model, optimizer=Spy(model.parameters(), lr=0.5), average=0.9)
    mean = states[0]
    for state in states[1:]:
        mean = {name: 0.9 * w + 0.1 * state[name] for name, w in mean.items()}
    for name, w in model.state_dict().items():
        assert_close(w, mean[name])


def test_the_flat_schedule():
    factor = train.flat_linear(100)
    assert [factor(step) for step in (0, 49, 50, 75, 99)] == pytest.approx([1, 1, 1, 0.5, 0.02])


@pytest.mark.parametrize("name", FEATURES)
def test_each_feature_can_be_trained(name):
    shape, changes = FEATURES[name]
    model = nano(**{"tied": False, **shape})
    before = copy.deepcopy(model.state_dict())
    run(model, 3, **base_with(changes)(model, 3))
    assert all(w.isfinite().all() for w in model.state_dict().values())
    assert any(not torch.equal(w, before[key]) for key, w in model.state_dict().items())
