"""Batches of generated documents: seeded, grouped by length, never stored."""
import random

import torch


def pool(make, encoder, seed, budget, batches=16):
    """One pool of batches.  The same seed always gives the same pool."""
    rng = random.Random(seed)
    docs, tokens = [], 0
    while tokens < budget * batches:
        ids, mask = encoder.document(make(rng))
        if len(ids) <= 480:
            docs.append((ids, mask))
            tokens += len(ids)
    docs.sort(key=lambda d: len(d[0]))
    out, row, longest = [], [], 0
    for d in docs:
        # A batch is full when its padded size would pass the token budget.
        if row and (len(row) + 1) * max(longest, len(d[0])) > budget:
            out.append(collate(row, encoder.pad))
            row, longest = [], 0
        row.append(d)
        longest = max(longest, len(d[0]))
    if row and len(row) * longest > budget // 2:
        out.append(collate(row, encoder.pad))
    rng.shuffle(out)
    return out


def collate(rows, pad):
    """Next-token inputs, targets and weights."""
    length = max(len(i) for i, _ in rows) - 1
    ids = torch.full((len(rows), length), pad)
    targets = torch.full((len(rows), length), pad)
    weights = torch.zeros(len(rows), length)
    for r, (i, m) in enumerate(rows):
        n = len(i) - 1
        ids[r, :n] = torch.tensor(i[:-1])
        targets[r, :n] = torch.tensor(i[1:])
        weights[r, :n] = torch.tensor(m[1:], dtype=torch.float32)
    return ids, targets, weights


class Stream:
    """An endless, resumable stream of batches; `state` is two integers."""

    def __init__(self, make, encoder, seed, budget_at, state=(0, 0)):
        self.make, self.encoder, self.seed, self.budget_at = make, encoder, seed, budget_at
        self.index, self.used = state
        self.ready = None

    def next(self, progress):
        if self.ready is None or self.used >= len(self.ready):
            if self.ready is not None:
                self.index, self.used = self.index + 1, 0
            self.ready = pool(self.make, self.encoder, f"{self.seed}/{self.index}", self.budget_at(progress))
            self.used = min(self.used, len(self.ready) - 1)
        self.used += 1
        return self.ready[self.used - 1]

    def state(self):
        return (self.index, self.used)
