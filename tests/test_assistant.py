"""Chapter 16: the masked loss, Bradley and Terry, PPO; and that the page and utils.assistant are one."""

import ast
import copy
import json
import math
import random
import re

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests.notebooks import CHAPTERS, cells
from utils import assistant
from utils.assistant import A_LEN, END, Q_LEN, ScalarHead
from utils.data import CharTokenizer
from utils.nanogpt import NanoGPT, NanoGPTConfig
from utils.train import BETTER

TOKENIZER = CharTokenizer("\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
PAGE = next(path for path in CHAPTERS if path.stem.startswith("16"))


def nano(seed=0):
    torch.manual_seed(seed)
    shape = {"block_size": Q_LEN + A_LEN, "n_layer": 2, "n_head": 2, "n_embd": 16, **BETTER, "init": "pytorch"}
    return NanoGPT(NanoGPTConfig(TOKENIZER.vocab_size, **shape)).eval()


def prompts(B=5):
    return assistant.encode_questions(TOKENIZER, assistant.split_questions(random.Random(1))[0][:B])


def test_every_document_fits_and_counts_its_answer_only():
    seen, unseen = assistant.split_questions(random.Random(1))
    assert not {question for question, _ in seen} & {question for question, _ in unseen}
    for question, word in seen + unseen:
        for style in sum(assistant.STYLES.values(), []):
            answer = style.format(word)
            ids, targets = assistant.encode_document(TOKENIZER, question, answer)
            assert len(ids) == len(targets) == Q_LEN + A_LEN - 1
            assert TOKENIZER.decode([i for i in targets if i != -1]) == answer + "\n"
            # each counted place reads the character before the one it must say
            assert all(ids[t + 1] == i for t, i in enumerate(targets[:-1]) if i not in (-1, END))


def test_the_masked_loss_is_the_loss_of_the_answers_characters():
    ids, targets = zip(*(assistant.encode_document(TOKENIZER, "Who wrote Faust?", said) for said in ("Goethe.", "It is red.")))
    x, y = torch.tensor(ids), torch.tensor(targets)                      # (B, T) each
    logits = nano()(x)[0].requires_grad_()                               # (B, T, V)
    places = [(b, t) for b in range(2) for t in range(y.shape[1]) if y[b, t] != -1]
    assert len(places) == 8 + 11
    by_hand = sum(-logits[b, t].log_softmax(dim=-1)[y[b, t]] for b, t in places) / len(places)
    loss = assistant.loss_on_answers(logits, y)
    assert_close(loss, by_hand)
    grad, = torch.autograd.grad(loss, logits)
    assert (grad[y == -1] == 0).all() and (grad[y != -1] != 0).any(dim=-1).all()


@pytest.mark.parametrize("question, words", [
    ("Why? " * 60, "300 characters, but this assistant's context has room for 25"), ("", "one line of text"),
    ("Hot?\nCold?", "one line of text"), ("Who wrote Père?", "'è' at position 11"),
])
def test_a_question_that_cannot_be_asked(question, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        assistant.encode_question(TOKENIZER, question)


def test_the_rollouts_log_probabilities_are_those_of_a_whole_forward():
    model, questions = nano(), prompts()
    torch.manual_seed(3)
    ids, logp, mask = assistant.rollout(model, questions)
    assert ids.shape == (5, Q_LEN + A_LEN) and torch.equal(ids[:, :Q_LEN], questions)
    whole, _ = assistant.look(model, ids)
    assert_close(logp * mask, assistant.of_drawn(whole, ids) * mask, atol=1e-4, rtol=1e-4)
    # by the plain model, without the chapter's own helper
    plain = F.log_softmax(model(ids[:, :-1])[0], dim=-1)
    assert_close(logp[2, 0], plain[2, Q_LEN - 1, ids[2, Q_LEN]], atol=1e-4, rtol=1e-4)


def test_the_mask_ends_with_the_answer():
    model = nano()
    with torch.no_grad():   # ends come often
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(TOKENIZER.vocab_size).index_fill(0, torch.tensor([END]), 3.0))
    torch.manual_seed(3)
    ids, _, mask = assistant.rollout(model, prompts(8))
    said = assistant.read_answers(TOKENIZER, ids)
    assert mask.sum(dim=1).tolist() == [len(answer) for answer in said] and min(map(len, said)) < A_LEN
    assert (ids[:, Q_LEN:][mask == 0] == END).all()


def test_the_reward_is_read_where_the_answer_ends():
    reward_model, ids = ScalarHead(nano()).eval(), prompts(3)
    ids = torch.cat((ids, torch.full((3, A_LEN), 20)), dim=1)   # (B, T): no end, an end, an end at once
    ids[1, Q_LEN + 4 :] = END
    ids[2, Q_LEN:] = END
    found, whole = assistant.reward_of(reward_model, ids), reward_model(ids)
    assert_close(found, torch.stack([whole[0, -1], whole[1, Q_LEN + 4], whole[2, Q_LEN]]))
    other = ids.clone()
    other[1, Q_LEN + 5 :] = 30                                  # what follows the end changes nothing
    assert_close(assistant.reward_of(reward_model, other)[1], found[1])


def test_bradley_and_terrys_slope():
    better, worse = torch.tensor([2.0, -1.0, 0.0], requires_grad=True), torch.tensor([0.5, 3.0, 0.0], requires_grad=True)
    loss = assistant.ranking_loss(better, worse)
    assert_close(loss.item(), sum(math.log(1 + math.exp(-d)) for d in (1.5, -4.0, 0.0)) / 3)
    up, down = torch.autograd.grad(loss, (better, worse))
    assert_close(up, torch.tensor([-1 / (1 + math.exp(d)) / 3 for d in (1.5, -4.0, 0.0)]))
    assert_close(down, -up)


def test_a_pair_of_equals_is_refused():
    better = torch.cat((prompts(3), prompts(3)), dim=1)
    worse = better.clone()
    worse[[0, 2], -1] = 5
    with pytest.raises(ValueError, match="pair 1 is twice the same answer"):
        assistant.learn_ranking(ScalarHead(nano()), better, worse, steps=1, seed=0)


def test_raters_err_as_often_as_they_should(monkeypatch):
    questions = assistant.split_questions(random.Random(1))[0] * 2
    worth = iter([2.0, 1.0] * len(questions))   # the first is always better
    monkeypatch.setattr(assistant, "points", lambda word, answer: next(worth))
    answers = iter([(torch.full((len(questions), Q_LEN + A_LEN), i),) for i in (1, 2)])
    monkeypatch.setattr(assistant, "rollout", lambda policy, prompts: next(answers))
    better, worse, erred = assistant.ranked_pairs(None, TOKENIZER, questions, random.Random(5))
    assert 0.1 < erred.float().mean() < 0.2
    assert torch.equal(better[:, 0] == 2, erred) and torch.equal(worse[:, 0] == 1, erred)


def test_kl():
    p, q = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.25, 0.25, 0.5]).log()
    assert_close(assistant.divergence(p, q).item(), 0.5 * math.log(2) + 0.25 * math.log(1) + 0.25 * math.log(0.5))
    ids = torch.cat((prompts(), torch.randint(1, 60, (5, A_LEN))), dim=1)
    one, other = (assistant.look(nano(seed), ids)[0] for seed in (0, 1))   # (B, A_LEN, V) each
    assert (assistant.divergence(one, other) > 0).all()
    assert_close(assistant.divergence(one, one), torch.zeros(5, A_LEN))


def test_the_clip_by_hand():
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.1, 9.0]])
    advantage = torch.tensor([[1.0, -1.0, -2.0, 2.0, 3.0, 5.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]])
    old = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    now = (old + ratio.log()).requires_grad_()
    loss = assistant.ppo_loss(now, old, advantage, mask)
    assert_close(loss.item(), -(1.2 - 1.5 - 1.6 + 1.0 + 3.3) / 5)
    loss.backward()
    assert_close(now.grad, -torch.tensor([[0.0, -1.5, 0.0, 1.0, 3.3, 0.0]]) / 5)


def test_advantages_are_the_sums_of_later_surprises():
    rewards, values = torch.randn(2, 6, generator=torch.Generator().manual_seed(1)), torch.randn(2, 6)
    values[1, 4:], rewards[1, 4:] = 0.0, 0.0   # an answer that ended
    found = assistant.advantages(rewards, values, keep=0.9)
    for b in range(2):
        later = [*values[b, 1:].tolist(), 0.0]
        surprise = [rewards[b, t].item() + later[t] - values[b, t].item() for t in range(6)]
        assert_close(found[b], torch.tensor([sum(0.9**k * surprise[t + k] for k in range(6 - t)) for t in range(6)]))
    # kept whole, it is the whole reward to come minus the guess
    assert_close(assistant.advantages(rewards, values, keep=1.0), rewards.flip(1).cumsum(1).flip(1) - values)
    assert (found[1, 4:] == 0).all()


def test_at_the_first_step_nothing_is_far_and_ppo_moves_the_policy_alone():
    model = nano()
    reward_model, policy = ScalarHead(model).eval(), copy.deepcopy(model)
    questions = assistant.split_questions(random.Random(1))[0]
    history = assistant.ppo(policy, model, reward_model, TOKENIZER, questions, steps=2, seed=0, beta=0.3, size=4)
    assert abs(history[0]["kl"]) < 1e-4 < history[1]["kl"]
    assert not torch.equal(policy.lm_head.weight, model.lm_head.weight)
    assert_close(model.state_dict(), nano().state_dict())


def test_the_page_and_the_script_have_one_world_and_one_setting():
    constants = {"ASKED", "KNOWN", "STYLES", "Q_LEN, A_LEN", "END"}

    def assigned(source):
        nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
        return {ast.unparse(node.targets[0]).strip("()"): ast.unparse(node.value) for node in nodes}

    page = "\n".join(cell["source"] for cell in cells(PAGE, "code"))
    script = open(assistant.__file__, encoding="utf-8").read()
    here, there = assigned(page), assigned(script)
    assert {name: here[name] for name in constants} == {name: there[name] for name in constants}
    for call in ("fine_tune", "learn_ranking", "ppo"):
        said = [set(re.findall(rf"{call}\([^()]*?steps=(\d\d+)", text)) for text in (page, script)]
        assert said[0] == said[1] and len(said[0]) == 1, call
    assert f"beta={assistant.BETA}" in page


def test_what_is_stored_has_three_seeds():
    stored = json.loads(assistant.MEASURED.read_text(encoding="utf-8"))
    assert len(stored["runs"]) >= 3 and {"hardware", "torch", "date"} <= set(stored)
    for run in stored["runs"].values():
        assert {"base", "tuned", "ranking", "leash", "free"} <= set(run)
