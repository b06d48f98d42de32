"""A training script like nanoGPT's, on the characters of this file: own schedule of the rate, groups, clipping.

thalweg race examples/language_model.py:main --rules adam,muon --trials 4
"""

import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

eval_interval, eval_iters = 50, 4
batch_size, block_size, gradient_accumulation_steps = 8, 32, 2
n_layer, n_head, n_embd, dropout = 2, 2, 32, 0.1
learning_rate, min_lr, weight_decay, grad_clip = 1e-3, 1e-4, 1e-1, 1.0
max_iters, warmup_iters, lr_decay_iters = 200, 10, 200

text = Path(__file__).read_text(encoding="utf-8")
chars = sorted(set(text))
data = torch.tensor([chars.index(c) for c in text])
split = int(0.8 * len(data))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.c_attn, self.c_proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.mlp = nn.Sequential(nn.Linear(n_embd, 4 * n_embd), nn.GELU(), nn.Linear(4 * n_embd, n_embd))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = (h.view(B, T, n_head, -1).transpose(1, 2) for h in self.c_attn(self.ln_1(x)).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
        x = x + self.dropout(self.c_proj(y))
        return x + self.dropout(self.mlp(self.ln_2(x)))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(len(chars), n_embd), nn.Embedding(block_size, n_embd)
        self.h = nn.Sequential(*(Block() for _ in range(n_layer)))
        self.ln_f = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, len(chars), bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, idx, targets):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1), device=idx.device))
        logits = self.lm_head(self.ln_f(self.h(x)))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def configure_optimizers(self):
        decay_params = [p for p in self.parameters() if p.dim() >= 2]
        nodecay_params = [p for p in self.parameters() if p.dim() < 2]
        groups = [
            {"params": decay_params, "weight_decay": weight_decay},
            {"params": nodecay_params, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))


def get_batch(part):
    source = data[:split] if part == "train" else data[split:]
    ix = torch.randint(len(source) - block_size, (batch_size,))
    x = torch.stack([source[i : i + block_size] for i in ix])
    y = torch.stack([source[i + 1 : i + 1 + block_size] for i in ix])
    return x, y


@torch.no_grad()
def estimate_loss(model):
    out = {}
    model.eval()
    for part in ["train", "val"]:
        out[part] = torch.stack([model(*get_batch(part))[1] for _ in range(eval_iters)]).mean()
    model.train()
    return out


def get_lr(it):
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if it > lr_decay_iters:
        return min_lr
    ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (learning_rate - min_lr)


# was: def main():
def main(run):
    model = GPT()
    # was: optimizer = model.configure_optimizers()
    optimizer = run.optimizer(model, lr=learning_rate)
    X, Y = get_batch("train")
    # was: for iter_num in range(max_iters):
    for iter_num in run.steps(max_iters):
        for param_group in optimizer.param_groups:
            param_group["lr"] = get_lr(iter_num)
        if iter_num % eval_interval == 0:
            losses = estimate_loss(model)
            # was: print(f"step {iter_num}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
            run.report(val_loss=losses["val"], train_loss=losses["train"])
        for _ in range(gradient_accumulation_steps):
            _, loss = model(X, Y)
            loss = loss / gradient_accumulation_steps
            X, Y = get_batch("train")
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
