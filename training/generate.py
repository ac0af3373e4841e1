"""Greedy decoding in batches with a key/value cache, for evaluation."""
import torch
import torch.nn.functional as F


class Past:
    """Keys and values of every layer, grown one token at a time."""

    def __init__(self):
        self.kept = {}

    def extend(self, layer, k, v):
        if layer in self.kept:
            k = torch.cat((self.kept[layer][0], k), 2)
            v = torch.cat((self.kept[layer][1], v), 2)
        self.kept[layer] = (k, v)
        return k, v

    def select(self, rows):
        self.kept = {m: (k[rows], v[rows]) for m, (k, v) in self.kept.items()}


def step(model, ids, positions, mask, past):
    cos, sin = (t[positions].unsqueeze(1) for t in model.tables)
    x = model.model.embed_tokens(ids)
    for layer in model.model.layers:
        x = layer(x, cos, sin, mask, past)
    return F.linear(model.model.norm(x[:, -1]), model.model.embed_tokens.weight)


@torch.no_grad()
def greedy(model, prompts, pad, end, limit=110):
    """One batch, padded on the left; rows that end leave the batch."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
    real = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    positions = (real.cumsum(1) - 1).clamp(min=0)
    causal = torch.ones(longest, longest).tril()
    mask = (1 - causal * real[:, None, :].float()) * -1e9
    past, rows = Past(), list(range(len(prompts)))
    out = [[] for _ in prompts]
    logits = step(model, ids, positions, mask[:, None, None], past)
    at = positions[:, -1]
    for _ in range(limit):
        best = logits.argmax(-1)
        live = [i for i, t in enumerate(best.tolist()) if t != end]
        for i in live:
            out[rows[i]].append(best[i].item())
        if not live:
            break
        if len(live) < len(rows):
            keep = torch.tensor(live)
            rows, best, at, real = [rows[i] for i in live], best[keep], at[keep], real[keep]
            past.select(keep)
        at = at + 1
        real = torch.cat((real, torch.ones(len(rows), 1, dtype=real.dtype)), 1)
        mask = ((1 - real.float()) * -1e9)[:, None, None, None, :]
        logits = step(model, best[:, None], at[:, None], mask, past)
    return out


def answers(model, encoder, docs, batch=50):
    """Answers to many prompts; similar lengths share a batch."""
    prompts = [encoder.ids(encoder.prompt(d)) for d in docs]
    order = sorted(range(len(docs)), key=lambda i: len(prompts[i]))
    out = [""] * len(docs)
    for start in range(0, len(order), batch):
        chosen = order[start:start + batch]
        for i, ids in zip(chosen, greedy(model, [prompts[i] for i in chosen], encoder.pad, encoder.end)):
            out[i] = encoder.tok.decode(ids, skip_special_tokens=True)
    return out
