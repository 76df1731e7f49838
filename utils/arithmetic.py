"""Arithmetic for a GPT: problems drawn on the fly, with and without written steps. Chapter 17.

``python -m utils.arithmetic`` trains every model that the chapter speaks of from three seeds,
12 minutes on one CPU core, and writes data/arithmetic.json and the calculator's weights.
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F

from utils.checkpoint import made_with, save, write_json
from utils.data import ROOT, CharTokenizer
from utils.nanogpt import NanoGPT, NanoGPTConfig
from utils.train import BETTER, flat_linear, muon

RESULTS = ROOT / "data" / "arithmetic.json"
CALCULATOR = ROOT / "data" / "models" / "arithmetic.safetensors"
SEEDS = (1337, 1338, 1339)

tokenizer = CharTokenizer("0123456789+-*/=r")
zero = tokenizer.stoi["0"]                                              # the ids of the ten digits follow each other
LIMITS = {"+": (999, 999), "-": (999, 999), "*": (99, 99), "/": (999, 9)}   # the largest numbers before and after each sign
START = 8                                                               # a question of the calculator, as 037*048=, has 8 characters


def digits(n, width):
    """The last ``width`` digits of the numbers n (B,), the lowest first: (B, width)."""
    return n[:, None] // 10 ** torch.arange(width) % 10   # (B, 1) // (width,) → (B, width)


def written(n, width):
    """The ids of the numbers n (B,) as people write them, with zeros in front: (B, width)."""
    return digits(n, width).flip(1) + zero


def sign(char, n):
    """One character for each of the numbers n (B,): its ids (B, 1)."""
    return torch.full((len(n), 1), tokenizer.stoi[char])


def is_unseen(a, b):
    """True for the half of all pairs that no training may draw: (B,), (B,) → (B,). The same for (b, a) as for (a, b)."""
    mixed = (1000 * torch.minimum(a, b) + torch.maximum(a, b)) * 2654435761 % 2**32
    mixed = (mixed ^ mixed >> 15) * (2**31 - 1) % 2**32
    return (mixed >> 16) % 2 == 1


def all_pairs(most_a, most_b, least_b=0):
    """All pairs (a, b) up to these numbers, in two parts, for training and unseen: (N, 2) each."""
    pairs = torch.cartesian_prod(torch.arange(most_a + 1), torch.arange(least_b, most_b + 1))   # (N, 2)
    unseen = is_unseen(*pairs.T)                                                                # (N,)
    return pairs[~unseen], pairs[unseen]


def some(pairs, n, generator):
    """n of the pairs (N, 2), drawn at random: (n, 2)."""
    return pairs[torch.randint(len(pairs), (n,), generator=generator)]


def shuffled(pairs):
    """The pairs (N, 2) in an order that is mixed, but the same at every call."""
    return pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))]


def addition(pairs, width, plain=False):
    """Whole problems, a+b=sum, of the pairs (B, 2): ids (B, 3 · width + 3). The sum is reversed unless ``plain``."""
    a, b = pairs.T                                           # (B,) each
    total = digits(a + b, width + 1) + zero                  # (B, width + 1), the lowest digit first
    total = total.flip(1) if plain else total
    return torch.cat((written(a, width), sign("+", a), written(b, width), sign("=", a), total), dim=1)


def answer_loss(model, ids, start):
    """The mean loss over the answers alone: of ids (B, T), the first ``start`` are the question."""
    targets = ids[:, 1:].clone()                             # (B, T − 1), the next character
    targets[:, : start - 1] = -1                             # the question is given: nothing to learn there
    logits, _ = model(ids[:, :-1])                           # (B, T − 1, V)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


@torch.no_grad()
def is_right(model, ids, start):
    """Whether a model that always takes the likeliest writes each answer as ids (B, T) has it, every character: (B,)."""
    guesses = torch.cat([model(part[:, :-1])[0].argmax(dim=-1) for part in ids.split(1000)])   # (B, T − 1)
    return (guesses[:, start - 1 :] == ids[:, start:]).all(dim=1)


def small_model(longest):
    """A NanoGPT of about 100,000 weights for problems of at most ``longest`` characters, with chapter 18's choices."""
    choices = {**BETTER, "position": "learned"}              # every digit has a fixed place, so places are learned
    return NanoGPT(NanoGPTConfig(tokenizer.vocab_size, longest - 1, n_layer=2, n_head=4, n_embd=64, **choices))


def practise(model, draw, start, steps, tests, every=50, seed=1337):
    """Train in place on the problems of ``draw(generator)``: a list of ids (B, T), each kind of its own length.

    Returns [(step, [share right, …])]: a look at each of the ``tests``, ids too, every so many steps.
    """
    optimizers, schedule, looks = muon(model, lr=6e-3), flat_linear(steps), []
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(1, steps + 1):
        model.zero_grad(set_to_none=True)
        for ids in draw(generator):
            answer_loss(model, ids, start).backward()        # the gradients of all kinds add up
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group, rate in zip(groups, rates):
            group["lr"] = rate * schedule(step - 1)
        for optimizer in optimizers:
            optimizer.step()
        if step % every == 0 or step == steps:
            looks.append((step, [is_right(model, ids, start).float().mean().item() for ids in tests]))
    model.eval()
    return looks


def add_steps(a, b):
    """From the lowest column up: the digit, then what is carried. (B,), (B,) → (B, 6)."""
    x, y, carry, out = digits(a, 3), digits(b, 3), torch.zeros_like(a), []
    for i in range(3):
        column = x[:, i] + y[:, i] + carry                   # (B,), at most 19
        carry = column // 10
        out += [column % 10, carry]
    return torch.stack(out, dim=1) + zero


def subtract_steps(a, b):
    """Digit and borrow from the lowest column up; where the last one borrows, 1000 − that, digit by digit. (B, 9)."""
    x, y, borrow, out = digits(a, 3), digits(b, 3), torch.zeros_like(a), []
    for i in range(3):
        column = x[:, i] - y[:, i] - borrow                  # (B,), at least −10
        borrow = (column < 0).long()
        out += [column % 10, borrow]
    return torch.cat((torch.stack(out, dim=1), digits((a - b).abs(), 3)), dim=1) + zero


def multiply_steps(a, b):
    """a times each digit of b, product by product with its carry added; then the two rows added. (B, 16)."""
    x, y, rows, out = digits(a, 2), digits(b, 2), [], []
    for j in range(2):
        first, second = x[:, 0] * y[:, j], x[:, 1] * y[:, j]     # (B,) each, at most 81
        carried = second + first // 10
        out += [first % 10, first // 10, second % 10, second // 10, carried % 10, carried // 10]
        rows.append((first % 10, carried % 10, carried // 10))
    (_, p1, p2), (q0, q1, q2) = rows                             # the second row stands one place further left
    tens = p1 + q0
    hundreds = p2 + q1 + tens // 10
    out += [tens % 10, tens // 10, hundreds % 10, hundreds // 10]
    return torch.stack(out, dim=1) + zero


def divide_steps(a, b):
    """Long division from the highest digit down: a digit of the quotient, then the remainder so far. (B, 6)."""
    x, rest, out = digits(a, 3), torch.zeros_like(a), []
    for i in (2, 1, 0):
        part = 10 * rest + x[:, i]                           # (B,), bring down the next digit
        rest = part % b
        out += [part // b, rest]
    return torch.stack(out, dim=1) + zero


STEPS = {"+": add_steps, "-": subtract_steps, "*": multiply_steps, "/": divide_steps}


def answer(op, a, b, plain):
    """The ids of the result (B, 4), of a division (B, 5); the lowest digit first unless ``plain``."""
    if op == "/":   # long division begins with the highest digit in any case
        return torch.cat((written(a // b, 3), sign("r", a), written(a % b, 1)), dim=1)
    ids = digits({"+": a + b, "-": (a - b).abs(), "*": a * b}[op], 4) + zero
    if op == "-":   # at most three digits: the sign has the fourth place
        ids[:, 3] = torch.where(a < b, tokenizer.stoi["-"], tokenizer.stoi["+"])
    return ids.flip(1) if plain else ids


def problem(op, pairs, traced):
    """Whole problems of one operation: question=answer, or question=steps=answer. (B, 2) → ids (B, T)."""
    a, b = pairs.T                                               # (B,) each
    parts = [written(a, 3), sign(op, a), written(b, 3), sign("=", a)]
    if traced:
        parts += [STEPS[op](a, b), sign("=", a)]
    return torch.cat((*parts, answer(op, a, b, plain=traced)), dim=1)


def train_adder(width, plain, steps, seed=1337):
    """A model that adds numbers of ``width`` digits: (model, the looks of ``practise``, 5,000 unseen problems)."""
    seen, unseen = all_pairs(10**width - 1, 10**width - 1)       # (N, 2) each
    tests = addition(shuffled(unseen)[:5000], width, plain)      # (5000, 3 · width + 3)
    torch.manual_seed(seed)
    model = small_model(tests.shape[1])

    def draw(generator):
        return [addition(some(seen, 256, generator), width, plain)]

    return model, practise(model, draw, 2 * width + 2, steps, [tests[:1000]], every=20, seed=seed), tests


def train_calculator(traced, steps, seed=1337):
    """A model for all four operations: (model, the looks of ``practise``, {operation: 1,000 unseen problems})."""
    pairs = {op: all_pairs(*LIMITS[op], least_b=int(op == "/")) for op in STEPS}
    tests = {op: problem(op, shuffled(unseen)[:1000], traced) for op, (_, unseen) in pairs.items()}   # (1000, T) each
    torch.manual_seed(seed)
    model = small_model(max(ids.shape[1] for ids in tests.values()))

    def draw(generator):
        return [problem(op, some(seen, 64, generator), traced) for op, (seen, _) in pairs.items()]

    return model, practise(model, draw, START, steps, list(tests.values()), every=50, seed=seed), tests


ADDERS = {f"{width} digits, {order}": (width, order == "plain") for width in (2, 3) for order in ("reversed", "plain")}
CALCULATORS = {"with steps": True, "without": False}


def _measure(name, seed):
    """Train one model of the chapter and test it: a dict of numbers, and the model."""
    start = time.process_time()
    if name in ADDERS:
        model, looks, tests = train_adder(*ADDERS[name], steps=400, seed=seed)
        tests, question = {"+": tests}, 2 * ADDERS[name][0] + 2
    else:
        model, looks, tests = train_calculator(CALCULATORS[name], steps=700, seed=seed)
        question = START
    seconds = time.process_time() - start
    right = {op: round(is_right(model, ids, question).float().mean().item(), 4) for op, ids in tests.items()}
    looks = [(step, [round(share, 3) for share in shares]) for step, shares in looks]
    return {"right": right, "seconds": round(seconds), "looks": looks}, model


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m utils.arithmetic", description="Train the models of chapter 17.")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="default: 1337 1338 1339")
    parser.add_argument("--only", choices=[*ADDERS, *CALCULATORS], nargs="+", help="these models (default: all)")
    args = parser.parse_args(argv)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"models": {}}
    torch.set_num_threads(1)
    results["made with"] = ", ".join(made_with().values())
    for seed in args.seeds:
        for name in args.only or [*CALCULATORS, *ADDERS]:
            numbers, model = _measure(name, seed)
            results["models"].setdefault(name, {})[str(seed)] = numbers
            print(f"{name:20} seed {seed}: {numbers['right']} after {numbers['seconds']} s", flush=True)
            write_json(RESULTS, results)
            if name == "with steps":
                save(CALCULATOR, model, tokenizer, torch.float16, seed=seed, right=numbers["right"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
