"""Muon for matrices, AdamW for embeddings and norms."""
import torch
import torch.distributed as dist


def orthogonalise(g, steps=5, dtype=torch.float32):
    """Newton-Schulz on a stack of matrices with at least as many rows as columns swapped in; BF16 is enough for it."""
    x = (g / (g.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(steps):
        a = torch.bmm(x, x.transpose(1, 2))
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)
    return x


class Muon:
    """Momentum, orthogonalised.  The work is shared among the processes by layer."""

    def __init__(self, params, scales, momentum=0.95, decay=0.02, rank=0, world=1, dtype=torch.float32):
        self.dtype = dtype            # of the orthogonalisation
        self.scales = scales          # learning rate factor of each matrix
        self.params, self.momentum, self.decay, self.rank, self.world = params, momentum, decay, rank, world
        self.buffers = [torch.zeros_like(p) for p in params]
        self.groups = {}
        for i, p in enumerate(params):
            self.groups.setdefault(tuple(sorted(p.shape)), []).append(i)

    @torch.no_grad()
    def step(self, lr):
        flat = torch.zeros(sum(p.numel() for p in self.params))
        at, spans = 0, {}
        for i, p in enumerate(self.params):
            spans[i] = (at, at + p.numel())
            at += p.numel()
            self.buffers[i].lerp_(p.grad, 1 - self.momentum)
        for shape, members in self.groups.items():
            mine = members[self.rank::self.world]
            stack = []
            for i in mine:
                g = self.params[i].grad.lerp(self.buffers[i], self.momentum)
                stack.append(g if g.shape[0] <= g.shape[1] else g.T)
            if not stack:
                continue
            done = orthogonalise(torch.stack(stack), dtype=self.dtype)
            for i, u in zip(mine, done):
                u = u if u.shape == self.params[i].shape else u.T
                flat[spans[i][0]:spans[i][1]] = u.reshape(-1)
        if self.world > 1:
            dist.all_reduce(flat)
        for i, p in enumerate(self.params):
            u = flat[spans[i][0]:spans[i][1]].view_as(p)
            rate = lr * self.scales[i]
            p.mul_(1 - rate * self.decay).add_(u, alpha=-rate * 0.2 * max(p.shape) ** 0.5)

    def state_dict(self):
        return self.buffers

    def load_state_dict(self, buffers):
        self.buffers = buffers


def reduce_gradients(params, extra, world):
    """Sums gradients and a few numbers over the processes in one exchange."""
    flat = torch.cat([p.grad.reshape(-1) for p in params] + [torch.tensor(extra)])
    if world > 1:
        dist.all_reduce(flat)
    total = flat[-len(extra):].tolist()
    flat /= max(total[0], 1.0)                # total[0]: judged tokens
    at = 0
    for p in params:
        p.grad.copy_(flat[at:at + p.numel()].view_as(p))
        at += p.numel()
    return total
