"""The exercises of chapter 16, the assistant."""

import math

import torch
import torch.nn.functional as F

from utils.checks import Exercise
from utils.exercises import randoms


def mean_surprise(logits, targets):
    total, count = 0.0, 0
    for row, ids in zip(logits, targets.tolist()):
        for scores, i in zip(row, ids):
            if i != -1:
                total -= math.log(scores.softmax(dim=-1)[i].item())
                count += 1
    return total / count


def _masked(B, T, V, kept):
    """Logits and targets of which row b keeps the last ``kept[b]``."""
    targets = torch.arange(B * T).view(B, T) * 5 % V
    for row, n in zip(targets, kept):
        row[: T - n] = -1
    return randoms(B, T, V, seed=B * T, scale=2.0), targets


def _surprise(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten() % logits.shape[-1], reduction="none").view(targets.shape)


def _taken(scores, targets):
    """The mean of scores (B, T, V) at the targets (B, T) that count."""
    return scores[targets >= 0].gather(-1, targets[targets >= 0][:, None]).mean().item()


def pulls(better, worse):
    N = len(better)
    up = [-1 / (1 + math.exp(a - b)) / N for a, b in zip(better.tolist(), worse.tolist())]
    return torch.tensor(up), torch.tensor([-pull for pull in up])


def _pull(strength, mean=True, other=-1):
    def answer(better, worse):
        up = strength(better - worse) / (len(better) if mean else 1)
        return up, other * up

    return answer


def still_learns(ratio, advantage, clip):
    found = torch.zeros(ratio.shape, dtype=torch.bool)
    for b, row in enumerate(ratio.tolist()):
        for t, r in enumerate(row):
            a = advantage[b, t].item()
            if a > 0 and r < 1 + clip or a < 0 and r > 1 - clip:
                found[b, t] = True
    return found


def _clip_cases():
    first = torch.tensor([[1.0, 1.3, 1.3, 0.7, 0.7, 1.1, 0.5]]), torch.tensor([[1.0, 1.0, -1.0, 1.0, -1.0, 0.0, 0.0]])
    more = [(randoms(B, T, seed=T, scale=0.4).exp(), randoms(B, T, seed=B + 50), clip) for B, T, clip in ((3, 5, 0.1), (2, 8, 0.3))]
    return [(*first, 0.2), *more]


def dpo_loss(better, worse, ref_better, ref_worse, beta):
    total = 0.0
    for a, b, ref_a, ref_b in zip(better.tolist(), worse.tolist(), ref_better.tolist(), ref_worse.tolist()):
        total += math.log(1 + math.exp(-beta * ((a - ref_a) - (b - ref_b))))
    return total / len(better)


def _dpo(margin):
    return lambda *case: -F.logsigmoid(margin(*case)).mean().item()


EXERCISES = {
    "16.1": Exercise(
        reference=mean_surprise,
        cases=lambda: [_masked(2, 5, 7, (2, 4)), _masked(3, 4, 11, (1, 0, 3)), _masked(1, 6, 65, (6,))],
        insight="The model still reads the question, it only is not asked to have written it.",
        slips={
            "Do you divide by all places? Only those that count may be counted.":
                lambda logits, targets: ((_surprise(logits, targets) * (targets >= 0)).sum() / targets.numel()).item(),
            "Does each document count the same? Take the mean over all answer characters of the batch together.":
                lambda logits, targets: torch.stack([
                    s[t >= 0].mean() for s, t in zip(_surprise(logits, targets), targets) if (t >= 0).any()
                ]).mean().item(),
            "Do the −1 count too? As an index, −1 is the last character of the alphabet. Leave those places out.":
                lambda logits, targets: _surprise(logits, targets).mean().item(),
            "Does a −1 become the id 0? Leave those places out.":
                lambda logits, targets: _surprise(logits, targets.clamp(min=0)).mean().item(),
            "Is it the sum? Take the mean, or a batch with long answers is punished.":
                lambda logits, targets: (_surprise(logits, targets) * (targets >= 0)).sum().item(),
            "Is this the loss on the question? The places of −1 are those that do NOT count.":
                lambda logits, targets: _surprise(logits, targets)[targets < 0].mean().item(),
            "Does softmax run over the places? Each place has its own probabilities: dim=-1.":
                lambda logits, targets: -logits.log_softmax(dim=1).gather(-1, targets.clamp(min=0)[..., None])[..., 0][
                    targets >= 0
                ].mean().item(),
            "Is a minus missing? The surprise is −ln p.":
                lambda logits, targets: -mean_surprise(logits, targets),
            "Is the logarithm missing? The surprise is −ln p, not −p.":
                lambda logits, targets: -_taken(logits.softmax(dim=-1), targets),
            "Are these the logits themselves? First make them log-probabilities: log_softmax.":
                lambda logits, targets: -_taken(logits, targets),
            "Is this the logarithm to base 2? We count in nats: ln.":
                lambda logits, targets: mean_surprise(logits, targets) / math.log(2),
        },
    ),
    "16.2": Exercise(
        reference=pulls,
        cases=lambda: [
            (torch.tensor([2.0, 0.0, -1.0]), torch.tensor([0.5, 0.0, 2.0])),
            *((randoms(N, seed=N, scale=2.0), randoms(N, seed=N + 40, scale=2.0)) for N in (1, 5, 8)),
        ],
        insight="A pair that is already ranked right by far pulls no more; a pair ranked wrong by far pulls with full strength.",
        slips={
            "Is this for the sum? The loss is a mean over N pairs, so each pull is divided by N.":
                _pull(lambda d: -torch.sigmoid(-d), mean=False),
            "Do the pairs that are ranked right pull hardest? It must be σ(−d), not σ(d).":
                _pull(lambda d: -torch.sigmoid(d)),
            "Is the 3 of the page's cell left over? N is the number of pairs, len(better).":
                lambda better, worse: (up := -torch.sigmoid(worse - better) / 3, -up),
            "Is the sign turned around? More reward for the better one makes the loss smaller, so its gradient is negative.":
                _pull(lambda d: torch.sigmoid(-d)),
            "Do both go the same way? What pulls the better one up pushes the worse one down.":
                _pull(lambda d: -torch.sigmoid(-d), other=1),
            "Is this the loss itself? You need its slope.": _pull(lambda d: -F.logsigmoid(d)),
            "Does the pull miss the logarithm? The loss is −ln σ(d), not −σ(d).":
                _pull(lambda d: -torch.sigmoid(d) * torch.sigmoid(-d)),
            "Is d turned around? It is better − worse.":
                lambda better, worse: pulls(worse, better)[::-1],
        },
    ),
    "16.3": Exercise(
        reference=still_learns,
        cases=_clip_cases,
        insight="The clip stops a step that has gone far enough, and never one that must go back.",
        slips={
            "Do you only ask whether the ratio is inside the clip? A ratio that went the WRONG way must still be able to come back.":
                lambda ratio, advantage, clip: ((ratio - 1).abs() < clip) & (advantage != 0),
            "Do you only ask whether the ratio is inside the clip? Look at the sign of the advantage too.":
                lambda ratio, advantage, clip: (ratio - 1).abs() < clip,
            "Can an advantage of 0 teach something? 0 times any ratio is 0, everywhere.":
                lambda ratio, advantage, clip: torch.where(advantage >= 0, ratio < 1 + clip, ratio > 1 - clip),
            "Is the limit 0.2 written into your code? It is the argument clip.":
                lambda ratio, advantage, clip: still_learns(ratio, advantage, 0.2),
            "Is an advantage of 0 taken for a bad one? 0 times any ratio is 0, everywhere.":
                lambda ratio, advantage, clip: torch.where(advantage > 0, ratio < 1 + clip, ratio > 1 - clip),
            "Are the two sides exchanged? A good token must not become much MORE likely, a bad one not much LESS.":
                lambda ratio, advantage, clip: torch.where(advantage > 0, ratio > 1 - clip, ratio < 1 + clip) & (advantage != 0),
            "Is this where it is clipped? The question is where it still learns.":
                lambda ratio, advantage, clip: ~still_learns(ratio, advantage, clip),
            "Does the upper limit hold for bad tokens too? For them it is the lower one, 1 − clip.":
                lambda ratio, advantage, clip: (ratio < 1 + clip) & (advantage != 0),
        },
    ),
    "16.4": Exercise(
        reference=dpo_loss,
        cases=lambda: [
            tuple(randoms(N, seed=10 * N + i, scale=3.0) - 8 for i in range(4)) + (beta,) for N, beta in ((3, 0.5), (1, 0.1), (6, 1.0))
        ],
        insight="No reward model and no sampling: the two language models together are the reward model.",
        slips={
            "Is the reference forgotten? What counts is how much likelier an answer became.":
                _dpo(lambda a, b, ref_a, ref_b, beta: beta * (a - b)),
            "Is this the ratio of the probabilities? The reward takes its logarithm, a difference.":
                _dpo(lambda a, b, ref_a, ref_b, beta: beta * ((a - ref_a).exp() - (b - ref_b).exp())),
            "Are the log-probabilities divided? The logarithm of a ratio is a difference.":
                _dpo(lambda a, b, ref_a, ref_b, beta: beta * (a / ref_a - b / ref_b)),
            "Does β multiply only one of the two gains? A bracket around their difference is missing.":
                _dpo(lambda a, b, ref_a, ref_b, beta: beta * (a - ref_a) - (b - ref_b)),
            "Are the references exchanged, or added? From each answer subtract the reference's opinion of the same answer.":
                _dpo(lambda a, b, ref_a, ref_b, beta: beta * ((a - ref_b) - (b - ref_a))),
            "Is β missing?": _dpo(lambda a, b, ref_a, ref_b, beta: (a - ref_a) - (b - ref_b)),
            "Is β outside of the logarithm? It multiplies the margin, before σ.":
                lambda a, b, ref_a, ref_b, beta: -beta * F.logsigmoid((a - ref_a) - (b - ref_b)).mean().item(),
            "Are better and worse exchanged?": _dpo(lambda a, b, ref_a, ref_b, beta: -beta * ((a - ref_a) - (b - ref_b))),
            "Are the two gains added? The better one's must be larger than the worse one's: a difference.":
                _dpo(lambda a, b, ref_a, ref_b, beta: beta * ((a - ref_a) + (b - ref_b))),
            "Is it a sum over the pairs? Take the mean.":
                lambda *case: dpo_loss(*case) * len(case[0]),
            "Is the mean taken before −ln σ? Each pair has its own surprise; the mean comes last.":
                lambda a, b, ref_a, ref_b, beta: -F.logsigmoid((beta * ((a - ref_a) - (b - ref_b))).mean()).item(),
            "Is the minus missing?": lambda *case: -dpo_loss(*case),
            "Is the logarithm missing? It is the surprise −ln σ, not σ.":
                lambda a, b, ref_a, ref_b, beta: -torch.sigmoid(beta * ((a - ref_a) - (b - ref_b))).mean().item(),
        },
    ),
}
