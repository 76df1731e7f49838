"""The lecture's model, as chapters 06 to 11 build it.

The letters mean one thing everywhere: B batch, T time, C channels (``n_embd``),
H head size, V vocabulary size.

    idx (B, T) → token embedding + position embedding (B, T, C) → body → lm_head → logits (B, T, V)
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


class Head(nn.Module):
    """One head of causal self-attention: (B, T, C) → (B, T, H). Chapter 06.

    Vaswani et al., "Attention Is All You Need", 2017, section 3.2.1.
    """

    def __init__(self, n_embd, head_size, block_size, dropout=0.0):
        super().__init__()
        if head_size <= 0:
            raise ValueError(f"head_size is {head_size}, but a head needs at least 1 number per token")
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)
        # A buffer moves with the model but is not trained; it is rebuilt here, so not saved.
        self.register_buffer("tril", torch.tril(torch.ones(block_size, block_size)), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.query(x), self.key(x), self.value(x)            # (B, T, H) each
        wei = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5            # (B, T, H) @ (B, H, T) → (B, T, T)
        wei = wei.masked_fill(self.tril[:T, :T] == 0, float("-inf"))   # (B, T, T), the future forbidden
        wei = self.dropout(F.softmax(wei, dim=-1))                     # (B, T, T), each row sums to 1
        return wei @ v                                                 # (B, T, T) @ (B, T, H) → (B, T, H)


class MultiHeadAttention(nn.Module):
    """Several heads side by side, joined: (B, T, C) → (B, T, C). Chapters 07, 09 and 11.

    ``proj=False`` gives chapter 07's form, without the projection back onto the
    residual pathway; its output has n_head · H channels.
    Vaswani et al., 2017, section 3.2.2.
    """

    def __init__(self, n_embd, n_head, head_size, block_size, dropout=0.0, proj=True):
        super().__init__()
        self.heads = nn.ModuleList([Head(n_embd, head_size, block_size, dropout) for _ in range(n_head)])
        self.proj = nn.Linear(n_head * head_size, n_embd) if proj else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        out = torch.cat([head(x) for head in self.heads], dim=-1)   # n_head times (B, T, H) → (B, T, n_head · H)
        return self.dropout(self.proj(out))                         # (B, T, C)


class FeedForward(nn.Module):
    """What each token computes on its own: (B, T, C) → (B, T, C). Chapters 08, 09 and 11.

    ``widen=1, proj=False`` gives chapter 08's form, one linear layer and a ReLU.
    Vaswani et al., 2017, section 3.3.
    """

    def __init__(self, n_embd, dropout=0.0, widen=4, proj=True):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_embd, widen * n_embd),                                  # (B, T, C) → (B, T, 4C)
            nn.ReLU(),
            nn.Linear(widen * n_embd, n_embd) if proj else nn.Identity(),       # (B, T, 4C) → (B, T, C)
            nn.Dropout(dropout),
        )

    def forward(self, x):
        return self.net(x)   # (B, T, C)


class Block(nn.Module):
    """Communicate, then compute, each added to the residual pathway. Chapters 09 to 11.

    (B, T, C) → (B, T, C). ``norm=nn.Identity`` gives chapter 09's form, without layer norm.
    The norms come before each step ("pre-norm": Xiong et al., 2020), not after as in 2017.
    """

    def __init__(self, n_embd, n_head, block_size, dropout=0.0, norm=nn.LayerNorm):
        super().__init__()
        if n_embd % n_head != 0:
            raise ValueError(
                f"n_embd {n_embd} is not divisible by n_head {n_head}: each head takes "
                f"n_embd / n_head channels, so choose for example n_embd {n_embd // n_head * n_head + n_head}"
            )
        self.sa = MultiHeadAttention(n_embd, n_head, n_embd // n_head, block_size, dropout)
        self.ffwd = FeedForward(n_embd, dropout)
        self.ln1 = norm(n_embd)
        self.ln2 = norm(n_embd)

    def forward(self, x):
        x = x + self.sa(self.ln1(x))     # (B, T, C): look at the others
        x = x + self.ffwd(self.ln2(x))   # (B, T, C): think about what was seen
        return x


class LanguageModel(nn.Module):
    """The skeleton of every model from chapter 06 on; a chapter writes only its ``body``.

    ``body`` is any module (B, T, C) → (B, T, C).
    """

    def __init__(self, vocab_size, n_embd, block_size, body):
        super().__init__()
        self.block_size = block_size
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.body = body
        self.lm_head = nn.Linear(n_embd, vocab_size)

    def forward(self, idx, targets=None):
        """Logits (B, T, V) for ids (B, T), and the mean cross-entropy in nats if targets (B, T) are given.

        Raises ValueError where T is over block_size, or targets have another shape than
        idx; IndexError where an id is outside the vocabulary.
        """
        check_ids(idx, targets, self.token_embedding.num_embeddings, self.block_size)
        B, T = idx.shape
        tok = self.token_embedding(idx)                                      # (B, T, C)
        pos = self.position_embedding(torch.arange(T, device=idx.device))    # (T, C)
        x = self.body(tok + pos)                                             # (B, T, C)
        logits = self.lm_head(x)                                             # (B, T, V)
        # (B·T, V) against (B·T,), and no loss without targets
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, temperature=1.0, generator=None):
        """Continue ids (B, T) by max_new_tokens, each drawn from the model's own prediction.

        Temperatures below 1 sharpen the distribution, above 1 flatten it. ``generator``
        fixes the draws. Call ``model.eval()`` first, or dropout disturbs the text.
        """
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}, but must be above 0; near 0 is almost greedy, try 0.1")
        for _ in range(max_new_tokens):
            context = idx[:, -self.block_size :]                                 # (B, at most block_size)
            logits, _ = self(context)                                            # (B, T, V)
            probs = F.softmax(logits[:, -1, :] / temperature, dim=-1)            # (B, V), the last position only
            next_id = torch.multinomial(probs, num_samples=1, generator=generator)   # (B, 1)
            idx = torch.cat((idx, next_id), dim=1)                               # (B, T + 1)
        return idx


@dataclass
class GPTConfig:
    """The shape of a GPT, all that is needed to build it again. Chapter 11."""

    vocab_size: int = 65
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0


class GPT(LanguageModel):
    """The whole model of chapter 11: blocks and a last layer norm between embedding and head."""

    def __init__(self, config):
        c = config
        blocks = [Block(c.n_embd, c.n_head, c.block_size, c.dropout) for _ in range(c.n_layer)]
        super().__init__(c.vocab_size, c.n_embd, c.block_size, nn.Sequential(*blocks, nn.LayerNorm(c.n_embd)))
        self.config = config


def check_ids(idx, targets, vocab_size, block_size):
    """Raise a clear error for ids (B, T) or targets the model cannot take."""
    if idx.ndim != 2 or idx.shape[1] == 0:
        raise ValueError(f"idx has shape {tuple(idx.shape)}, but the model takes (B, T) with T at least 1")
    if idx.shape[1] > block_size:
        raise ValueError(
            f"idx is {idx.shape[1]} tokens long, but this model was built for at most block_size = {block_size}; "
            f"crop it with idx[:, -{block_size}:]"
        )
    if targets is not None and targets.shape != idx.shape:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}, idx has {tuple(idx.shape)}; they must be the same"
        )
    # On a GPU this look would wait for the device at every step.
    if idx.device.type == "cpu" and (idx.min() < 0 or idx.max() >= vocab_size):
        raise IndexError(
            f"idx holds ids from {idx.min()} to {idx.max()}, but the vocabulary has only 0 to {vocab_size - 1}; "
            "was the text encoded with another tokenizer?"
        )
