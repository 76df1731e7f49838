"""Muon, the optimizer for matrices. Chapter 18.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
(https://kellerjordan.github.io/posts/muon).
"""

import torch


def orthogonalize(g, steps=5):
    """The matrix g (m, n) with its singular values moved near 1, between about 0.7 and 1.2: (m, n).

    Newton–Schulz: each step applies the polynomial a·s + b·s³ + c·s⁵ to every singular value
    s, by matrix products alone. The three numbers are Jordan's: fast from near 0, not exact at 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm() + 1e-7)                    # (m, n): no singular value is above 1 now
    if g.shape[0] > g.shape[1]:
        return orthogonalize(g.T, steps).T       # the products below are then between the shorter sides
    for _ in range(steps):
        xxt = x @ x.T                            # (m, n) @ (n, m) → (m, m)
        x = a * x + (b * xxt + c * xxt @ xxt) @ x   # (m, m) @ (m, n) → (m, n)
    return x


class Muon(torch.optim.Optimizer):
    """Momentum, and each matrix's step made orthogonal before it is taken: every direction counts alike.

    For matrices only; embeddings, heads, norms and biases belong to AdamW. The step of a
    matrix (m, n) is longer by √(m/n) where it widens. ``weight_decay`` is AdamW's: each step
    first takes that share, times the learning rate, from every weight.
    """

    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.ndim != 2:
                raise ValueError(f"Muon steps with matrices, but a parameter has shape {tuple(p.shape)}; give it to AdamW")

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not self.state[p]:
                    self.state[p]["mean"] = torch.zeros_like(p)
                mean = self.state[p]["mean"].lerp_(p.grad, 1 - group["momentum"])   # (m, n): a running mean of the gradients
                ahead = p.grad.lerp(mean, group["momentum"])                        # (m, n): Nesterov's look ahead
                longer = max(1, p.shape[0] / p.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(orthogonalize(ahead), alpha=-group["lr"] * longer)
