"""Choosing tokens, and the key/value cache: it changes the speed and nothing else."""

import pytest
import torch
from torch.testing import assert_close

from utils import checkpoint, sample
from utils.nanogpt import NanoGPT, NanoGPTConfig
from utils.sample import Cache, generate, next_probs
from utils.train import BETTER

V, BLOCK = 11, 9


def nano(**changes):
    torch.manual_seed(0)
    shape = {"vocab_size": V, "block_size": BLOCK, "n_layer": 2, "n_head": 4, "n_embd": 24, "init": "pytorch", **changes}
    return NanoGPT(NanoGPTConfig(**shape)).eval()


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("how", [{"temperature": 0}, {}, {"temperature": 0.7, "top_k": 4}, {"top_p": 0.8}], ids=str)
@pytest.mark.parametrize("T", [1, 4, BLOCK - 1, BLOCK, BLOCK + 3])
@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_the_cache_changes_no_token(position, how, T):
    """Through the moment the context exceeds block_size, and well beyond."""
    model, idx = nano(position=position), torch.randint(V, (3, T), generator=seeded(T))
    slow = generate(model, idx, 2 * BLOCK, generator=seeded(), cached=False, **how)
    fast = generate(model, idx, 2 * BLOCK, generator=seeded(), cached=True, **how)
    assert torch.equal(slow, fast)
    assert torch.equal(fast[:, :T], idx) and fast.shape == (3, T + 2 * BLOCK)


def test_it_writes_what_the_lectures_generate_writes():
    model, idx = nano(), torch.zeros(2, 1, dtype=torch.long)
    for temperature in (1.0, 0.5):
        expected = model.generate(idx, 3 * BLOCK, temperature=temperature, generator=seeded())
        assert torch.equal(generate(model, idx, 3 * BLOCK, temperature=temperature, generator=seeded()), expected)


@pytest.mark.parametrize("choice", [{}, {"position": "rotary"}, {**BETTER, "init": "pytorch"}], ids=str)
def test_cached_logits_are_the_uncached_ones(choice):
    model, idx = nano(**choice), torch.randint(V, (3, BLOCK), generator=seeded())
    whole, cache = model(idx)[0], Cache(2)
    first, _ = model(idx[:, :4], cache=cache)
    steps = [model(idx[:, t : t + 1], cache=cache)[0] for t in range(4, BLOCK)]
    assert len(cache) == BLOCK
    assert_close(torch.cat([first, *steps], dim=1), whole)


def test_a_full_cache_says_so():
    model, cache = nano(), Cache(2)
    model(torch.zeros(1, BLOCK, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="the cache is full: it holds 9 tokens"):
        model(torch.zeros(1, 1, dtype=torch.long), cache=cache)


def test_a_used_cache_takes_one_token_at_a_time():
    model, cache = nano(), Cache(2)
    model(torch.zeros(1, 2, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="one token at a time"):
        model(torch.zeros(1, 2, dtype=torch.long), cache=cache)


def test_top_k_and_top_p_keep_what_they_should():
    probs = torch.tensor([[0.1, 0.4, 0.05, 0.25, 0.2], [0.2, 0.2, 0.2, 0.2, 0.2]])
    logits = probs.log() + 3   # a constant changes nothing
    assert_close(next_probs(logits), probs)
    assert_close(next_probs(logits, top_k=2)[0], torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65)
    assert_close(next_probs(logits, top_k=99), probs)
    assert_close(next_probs(logits, top_p=0.6)[0], torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65)
    assert_close(next_probs(logits, top_p=0.66)[0], torch.tensor([0, 0.4, 0, 0.25, 0.2]) / 0.85)
    assert_close(next_probs(logits, top_p=1.0), probs)
    assert_close(next_probs(logits, top_p=1e-9)[0], torch.tensor([0.0, 1, 0, 0, 0]))
    assert (next_probs(logits, top_k=3)[1] > 0).tolist() == [True, True, True, False, False]   # equals: the first ones
    assert_close(next_probs(logits, temperature=0), torch.tensor([[0.0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]))
    assert_close(next_probs(logits, temperature=0.5)[0], probs[0].square() / probs[0].square().sum())


@pytest.mark.parametrize("settings", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.5}], ids=str)
def test_settings_that_make_no_sense(settings):
    with pytest.raises(ValueError, match="must be|must remain"):
        next_probs(torch.zeros(1, V), **settings)


@pytest.fixture
def command(capsys):
    def call(*args):
        code = sample.main(["--device", "cpu", *args])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_command_writes_and_its_seed_decides(command):
    args = ("--prompt", "ROMEO:", "--length", "30")
    code, text, err = command(*args)
    assert code == 0 and err == "" and text.startswith("ROMEO:") and len(text) == 37
    assert command(*args)[1] == text
    assert command(*args, "--seed", "2")[1] != text


@pytest.mark.parametrize("args, words", [
    (("--prompt", ""), "--prompt is empty"),
    (("--prompt", "a" * 2000), "2000 tokens, but this model sees at most"),
    (("--prompt", "Roméo"), "'é' at position 3"),
    (("--length", "0"), "--length is 0"),
    (("--temperature", "-1"), "temperature is -1"),
    (("--device", "abacus"), "no device 'abacus' here; there is cpu"),
    (("--checkpoint", "nowhere.safetensors"), "no checkpoint nowhere.safetensors"),
])
def test_the_command_explains_what_is_wrong(command, args, words):
    code, out, err = command(*args)
    assert code == 2 and out == "" and err.startswith("error:") and words in err


def test_a_lecture_model_can_be_sampled_too(command):
    model, tokenizer, _ = checkpoint.load_pretrained()
    code, text, _ = command("--prompt", "The", "--length", "5")
    assert code == 0 and len(text.rstrip("\n")) <= 8 and set(text) <= set(tokenizer.chars)
