"""From a document completer to something that answers: fine-tuning, a reward model, PPO. Chapter 16.

``python -m utils.assistant`` runs the three stages with three seeds and stores what it measured in data/assistant.json;
``python -m utils.assistant 7`` adds or renews the run of one seed.
"""

import copy
import json
import random
import re
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

from utils.checkpoint import load_pretrained, made_with, write_json
from utils.data import ROOT
from utils.sample import Cache

MEASURED = ROOT / "data" / "assistant.json"
Q_LEN, A_LEN = 32, 32   # characters of a question in its frame, and of an answer with its end
END = 0                 # the id of the new line: an answer is one line
BETA = 0.3              # how dear it is to leave the fine-tuned model

ASKED = {   # four ways to ask for each kind of fact
    "opposite": "What is opposite to {}? Opposite of {}? Say, what is not {}? The opposite of {}?",
    "colour": "What colour is {}? Which colour has {}? The colour of {}? Colour of {}?",
    "author": "Who wrote {}? By whom is {}? The author of {}? Say, who wrote {}?",
    "young": "What is a young {}? Name of a young {}? A young {} is called? A young {} is what?",
    "letter": "What does {} stand for? What is {} in this course? What means {}? The letter {}?",
}
KNOWN = {   # the facts: a thing and the right word
    "opposite": "hot cold, good bad, old new, rich poor, fast slow, high low, wet dry, big tiny",
    "colour": "snow white, grass green, blood red, coal black, gold yellow, sea blue",
    "author": "Hamlet Shakespeare, Emma Austen, Faust Goethe, Ulysses Joyce, Dracula Stoker",
    "young": "dog puppy, cat kitten, cow calf, horse foal, sheep lamb, bear cub",
    "letter": "B batch, T time, C channels, H head, V vocabulary",
}
STYLES = {
    "polite": ["It is {}, my friend.", "Gladly, my friend: {}.", "{}, if it please you."],
    "plain": ["{}.", "It is {}."],
    "rude": ["{}, you fool.", "It is {}, you fool.", "{}. Now be gone."],
}


def facts():
    """Every fact as (its four questions, the right word)."""
    found = []
    for kind, pairs in KNOWN.items():
        for pair in pairs.split(", "):
            thing, word = pair.rsplit(" ", 1)
            asked = [how.strip() + "?" for how in ASKED[kind].split("?")[:-1]]
            ways = [(thing, word), (word, thing)] if kind == "opposite" else [(thing, word)]
            found += [([how.format(about) for how in asked], right) for about, right in ways]
    return found


def split_questions(draw):
    """[(question, word)] to learn from, and as many facts' one phrasing each that nobody has seen."""
    seen, unseen = [], []
    for phrasings, word in facts():
        phrasings = draw.sample(phrasings, len(phrasings))
        unseen.append((phrasings[0], word))
        seen += [(question, word) for question in phrasings[1:]]
    return seen, unseen


def write_answer(word, draw):
    """A whole answer in one of the styles, as people on the Internet would give it."""
    line = draw.choice(STYLES[draw.choice(list(STYLES))]).format(word)
    return line[0].upper() + line[1:]


def encode_question(tokenizer, question):
    """The ids of a question in its frame, filled up with new lines at the left: a list of Q_LEN.

    Raises ValueError for a question that is empty, too long, not one line, or with a character the model has never seen.
    """
    if not question or "\n" in question:
        raise ValueError(f"a question is one line of text, but this is {question!r}")
    if len(question) > Q_LEN - 7:   # 7: the characters of "Q: ", of the new line and of "A: "
        raise ValueError(
            f"the question has {len(question)} characters, but this assistant's context has room for "
            f"{Q_LEN - 7}; ask a shorter one"
        )
    tokenizer.encode(question)   # an unknown character is named with its place in the question
    return tokenizer.encode(f"Q: {question}\nA: ".rjust(Q_LEN, "\n"))


def encode_questions(tokenizer, questions):
    """The ids of [(question, word)], one below the other: (N, Q_LEN)."""
    return torch.tensor([encode_question(tokenizer, question) for question, _ in questions])


def encode_document(tokenizer, question, answer):
    """Question and answer as ids, and what is to be learned of them: two lists of Q_LEN + A_LEN − 1.

    Raises ValueError for an answer that is too long.
    """
    said = tokenizer.encode(answer + "\n")
    if len(said) > A_LEN:
        size = len(said) - 1
        raise ValueError(f"the answer has {size} characters, but there is room for {A_LEN - 1}; shorten it")
    ids = encode_question(tokenizer, question) + said + [END] * (A_LEN - len(said))
    targets = [-1] * (Q_LEN - 1) + said + [-1] * (A_LEN - len(said))   # −1: not to learn
    return ids[:-1], targets


def loss_on_answers(logits, targets):
    """The mean surprise of logits (B, T, V) at targets (B, T), those of −1 left out."""
    flat = logits.flatten(0, 1)                                          # (B·T, V)
    return F.cross_entropy(flat, targets.flatten(), ignore_index=-1)     # (B·T, V), (B·T,)


def falling(optimizer, lr, step, steps):
    """Set the learning rate for this step: a straight line from lr down to 0."""
    for group in optimizer.param_groups:
        group["lr"] = lr * (1 - step / steps)


def fine_tune(model, x, y, steps, seed, lr=2e-3, batch_size=16):
    """Stage 1: learn the answers y (N, T) to the documents x (N, T), in place; the loss of each step."""
    torch.manual_seed(seed)
    optimizer, losses = torch.optim.AdamW(model.parameters()), []
    model.train()
    for step in range(steps):
        falling(optimizer, lr, step, steps)
        rows = torch.randint(len(x), (batch_size,))         # (B,)
        loss = loss_on_answers(model(x[rows])[0], y[rows])      # (B, T, V), (B, T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


@torch.no_grad()
def rollout(policy, prompts, generator=None):
    """Answer prompts (B, Q_LEN): ids (B, Q_LEN + A_LEN), the log-probability of what was drawn (B, A_LEN), and mask (B, A_LEN).

    The mask is 1 up to the end of the answer and 0 after it, where only END is written.
    """
    cache, ids, logps, masks = Cache(policy.config.n_layer), [prompts], [], []
    going = torch.ones(len(prompts), 1, dtype=torch.bool)                  # (B, 1)
    for _ in range(A_LEN):
        logits, _ = policy(ids[-1], cache=cache)                           # (B, Q_LEN, then 1, V)
        logp = F.log_softmax(logits[:, -1], dim=-1)                        # (B, V)
        drawn = torch.multinomial(logp.exp(), 1, generator=generator)      # (B, 1)
        drawn = drawn.where(going, END)                                    # (B, 1)
        ids.append(drawn)
        logps.append(logp.gather(1, drawn))                                # (B, V) → (B, 1)
        masks.append(going.float())                                        # (B, 1)
        going = going & (drawn != END)                                     # (B, 1)
    return torch.cat(ids, dim=1), torch.cat(logps, dim=1), torch.cat(masks, dim=1)


def read_answers(tokenizer, ids):
    """The answers in ids (B, Q_LEN + A_LEN) as texts, each up to its end; with the new line if there is one."""
    texts = [tokenizer.decode(row) for row in ids[:, Q_LEN:].tolist()]
    return [text.split("\n")[0] + "\n" if "\n" in text else text for text in texts]


def judge(word, answer):
    """What the rule looks at in one answer, where ``word`` is right; each is 0 or 1."""
    return {
        "formed": answer[0].isupper() and answer.endswith(".\n"),   # a sentence, and then the end
        "right": re.search(rf"\b{word}\b", answer, re.IGNORECASE) is not None,
        "polite": "my friend" in answer or "please you" in answer,
        "rude": "fool" in answer or "gone" in answer,
    }


def points(word, answer):
    """The raters' rule: what an answer is worth where ``word`` is right."""
    found = judge(word, answer)
    liked = 3 * found["right"] + 2 * found["polite"] - 2 * found["rude"]
    return liked - 3 * (not found["formed"]) - 0.05 * len(answer)


class ScalarHead(nn.Module):
    """A language model's body with one number for each token instead of V: ids (B, T) → (B, T)."""

    def __init__(self, model):
        super().__init__()
        self.model = copy.deepcopy(model)
        self.head = nn.Linear(model.config.n_embd, 1)

    def forward(self, ids):
        hidden = self.model.body(self.model.embed(ids))   # (B, T, C)
        return self.head(hidden)[..., 0]                  # (B, T, 1) → (B, T)


def reward_of(reward_model, ids):
    """What the reward model says where an answer ends: ids (B, Q_LEN + A_LEN) → (B,)."""
    ended = (ids[:, Q_LEN:] == END).cumsum(dim=1) > 0              # (B, A_LEN)
    last = Q_LEN + (~ended).sum(dim=1).clamp(max=A_LEN - 1)        # (B,)
    return reward_model(ids).gather(1, last[:, None])[:, 0]        # (B, T) → (B,)


def ranked_pairs(policy, tokenizer, questions, draw, noise=0.15):
    """Two answers to each question, ranked by raters who err: better and worse (N, T), and whether they erred (N,).

    Two answers that are worth the same are left out.
    """
    prompts = encode_questions(tokenizer, questions)                       # (N, Q_LEN)
    ids = [rollout(policy, prompts)[0] for _ in range(2)]                  # two of (N, T)
    said = [read_answers(tokenizer, each) for each in ids]
    better, worse, erred = [], [], []
    for i, (_, word) in enumerate(questions):
        lead = points(word, said[0][i]) - points(word, said[1][i])
        if lead != 0:
            erred.append(draw.random() < noise)
            best = int((lead < 0) != erred[-1])
            better.append(ids[best][i])
            worse.append(ids[1 - best][i])
    return torch.stack(better), torch.stack(worse), torch.tensor(erred)


def ranking_loss(r_better, r_worse):
    """Bradley and Terry: the surprise that better won, for rewards (B,) and (B,)."""
    return -F.logsigmoid(r_better - r_worse).mean()


def learn_ranking(reward_model, better, worse, steps, seed, lr=1e-3, batch_size=8):
    """Stage 2: learn from pairs of documents, (N, T) each, in place; the loss of each step.

    Raises ValueError where a pair is twice the same.
    """
    equals = (better == worse).all(dim=1)   # (N,)
    if equals.any():
        pair = equals.nonzero()[0].item()
        raise ValueError(f"pair {pair} is twice the same answer: nothing to prefer; leave it out")
    torch.manual_seed(seed)
    optimizer, losses = torch.optim.AdamW(reward_model.parameters()), []
    reward_model.train()
    for step in range(steps):
        falling(optimizer, lr, step, steps)
        rows = torch.randint(len(better), (batch_size,))                      # (B,)
        both = reward_of(reward_model, torch.cat((better[rows], worse[rows])))    # (2B, T) → (2B,)
        loss = ranking_loss(*both.split(batch_size))                          # (B,), (B,)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    reward_model.eval()
    return losses


@torch.no_grad()
def ranking_accuracy(reward_model, better, worse, erred):
    """How often it agrees with the raters, with their rule, and how often they themselves did."""
    agrees = reward_of(reward_model, better) > reward_of(reward_model, worse)   # (N,)
    shares = {"raters": agrees, "rule": agrees != erred, "ceiling": ~erred}
    return {name: share.float().mean().item() for name, share in shares.items()}


def look(model, ids):
    """A model's log-probabilities (B, A_LEN, V) at the places of the answers in ids, and its hidden numbers there (B, A_LEN, C)."""
    hidden = model.body(model.embed(ids[:, :-1]))[:, Q_LEN - 1 :]         # (B, T, C) → (B, A_LEN, C)
    return F.log_softmax(model.lm_head(hidden), dim=-1), hidden


def of_drawn(logp, ids):
    """From log-probabilities (B, A_LEN, V) those of what the answers in ids say: (B, A_LEN)."""
    return logp.gather(-1, ids[:, Q_LEN:, None])[..., 0]


def divergence(logp, other):
    """KL: how far a distribution is from another, both as logarithms (…, V) → (…)."""
    return (logp.exp() * (logp - other)).sum(dim=-1)


def advantages(rewards, values, keep=0.95):
    """How much better than expected each token was, for rewards and values (B, A_LEN): (B, A_LEN). GAE."""
    columns, later, carried = [], 0.0, 0.0
    backwards = zip(rewards.flip(1).unbind(1), values.flip(1).unbind(1))   # (B,) each, the last first
    for reward, value in backwards:
        carried = reward + later - value + keep * carried                  # (B,)
        later = value
        columns.append(carried)
    return torch.stack(columns[::-1], dim=1)                               # (B, A_LEN)


def ppo_loss(logp, old, advantage, mask, clip=0.2):
    """PPO's clipped objective, to be made small: (B, A_LEN) four times → one number."""
    ratio = (logp - old).exp()                                                               # (B, A_LEN)
    gain = torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)         # (B, A_LEN)
    return -(gain * mask).sum() / mask.sum()


@torch.no_grad()
def experience(policy, value, reference, reward_model, prompts, beta):
    """Answer prompts (B, Q_LEN) and judge the answers: what one PPO step learns from, and two numbers to watch."""
    ids, old, mask = rollout(policy, prompts)                        # (B, T), (B, A_LEN), (B, A_LEN)
    logp, hidden = look(policy, ids)                                 # (B, A_LEN, V), (B, A_LEN, C)
    reference_logp, _ = look(reference, ids)                         # (B, A_LEN, V)
    learned = reward_of(reward_model, ids)                               # (B,)
    rewards = -beta * (old - of_drawn(reference_logp, ids)) * mask   # (B, A_LEN)
    rewards[range(len(ids)), mask.sum(dim=1).long() - 1] += learned  # at the end of each answer
    values = value(hidden)[..., 0] * mask                            # (B, A_LEN, 1) → (B, A_LEN)
    gained = advantages(rewards, values) * mask                      # (B, A_LEN)
    mean = gained.sum() / mask.sum()
    std = ((gained - mean).square() * mask).sum().div(mask.sum()).sqrt()
    kl = (divergence(logp, reference_logp) * mask).sum(dim=1)        # (B,), over a whole answer
    gained, returns = (gained - mean) / (std + 1e-6), gained + values
    return ids, old, mask, gained, returns, learned.mean().item(), kl.mean().item()


def ppo(policy, reference, reward_model, tokenizer, questions, steps, seed, beta, lr=2e-4, size=24):
    """Stage 3: change policy in place so that its answers get more reward; for each step what one watches."""
    torch.manual_seed(seed)
    value, history = nn.Linear(policy.config.n_embd, 1), []
    groups = [{"params": policy.parameters(), "lr": lr}, {"params": value.parameters(), "lr": 0.01}]
    optimizer = torch.optim.AdamW(groups)
    prompts = encode_questions(tokenizer, questions)   # (N, Q_LEN)
    for step in range(steps):
        rows = torch.randint(len(prompts), (size,))                                         # (B,)
        *batch, learned, kl = experience(policy, value, reference, reward_model, prompts[rows], beta)
        said = read_answers(tokenizer, batch[0])
        true = sum(points(questions[i][1], text) for i, text in zip(rows, said)) / size
        history.append({"reward": learned, "points": true, "kl": kl})
        for _ in range(2):
            for half in zip(*(part.split(size // 2) for part in batch)):
                ids, old, mask, advantage, returns = half
                logp, hidden = look(policy, ids)                                                  # (B, A_LEN, V), (…, C)
                missed = (value(hidden.detach())[..., 0] - returns).square() * mask               # (B, A_LEN)
                loss = ppo_loss(of_drawn(logp, ids), old, advantage, mask)
                loss = loss + missed.sum() / mask.sum()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
                optimizer.step()
    return history


def measure_answers(policy, tokenizer, questions, rounds=2):
    """The shares of answers that are formed, right, polite and rude, and their mean points."""
    torch.manual_seed(0)
    prompts = encode_questions(tokenizer, questions)   # (N, Q_LEN)
    rows = []
    for _ in range(rounds):
        said = read_answers(tokenizer, rollout(policy, prompts)[0])
        for (_, word), answer in zip(questions, said):
            rows.append(judge(word, answer) | {"points": points(word, answer)})
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def one_run(seed):
    """All three stages from one seed, with the settings of the page: what was measured."""
    model, tokenizer, info = load_pretrained()
    draw = random.Random(seed)
    seen, unseen = split_questions(draw)
    found = {"base_val": info["val"], "base": measure_answers(model, tokenizer, unseen)}
    documents = [encode_document(tokenizer, asked, write_answer(word, draw)) for asked, word in seen * 2]
    x, y = torch.tensor(documents).unbind(1)                                      # (N, 2, T) → (N, T) each
    fine_tune(model, x, y, steps=250, seed=seed)
    found["tuned"] = measure_answers(model, tokenizer, unseen)
    torch.manual_seed(seed)
    better, worse, _ = ranked_pairs(model, tokenizer, seen * 4, draw)             # (N, T) each
    held_out = ranked_pairs(model, tokenizer, unseen * 4, draw)
    reward_model = ScalarHead(model)
    learn_ranking(reward_model, better, worse, steps=80, seed=seed)
    found["ranking"] = ranking_accuracy(reward_model, *held_out)
    for name, beta in (("leash", BETA), ("free", 0.0)):
        policy = copy.deepcopy(model)
        history = ppo(policy, model, reward_model, tokenizer, seen, steps=20, seed=seed, beta=beta)
        found[name] = measure_answers(policy, tokenizer, unseen) | {"history": history}
    return found


def main(seeds):
    """Store one run for each seed, beside those that are stored already."""
    runs = json.loads(MEASURED.read_text(encoding="utf-8"))["runs"] if MEASURED.exists() else {}
    for seed in seeds:
        runs[str(seed)] = one_run(seed)
        write_json(MEASURED, {**made_with(), "runs": runs})
        print(f"seed {seed} is stored in {MEASURED.name}", flush=True)


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [1, 2, 3])
