"""Qwen3 in plain PyTorch, small and quick on a CPU.

Same arithmetic and parameter names as `Qwen3ForCausalLM`.  Attention is a
plain matmul-softmax-matmul: on short sequences on a CPU that is several times
faster than the fused kernel's backward pass.  The weights may be BF16: norms,
rotations, softmax and the loss are then still computed in F32.
"""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 640
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 1024


PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


class Linear(nn.Linear):
    """A projection that may carry LoRA experts beside its frozen weight."""

    def __init__(self, i, o):
        super().__init__(i, o, bias=False)
        self.experts = []          # list of (A, B, scale)

    def forward(self, x):
        y = F.linear(x, self.weight)
        for a, b, scale in self.experts:
            y = y + F.linear(F.linear(x, a.to(x.dtype)), b.to(x.dtype)) * scale
        return y


def rope_tables(cfg, length):
    inv = 1.0 / cfg.rope_theta ** (torch.arange(0, cfg.head_dim, 2).float() / cfg.head_dim)
    angle = torch.outer(torch.arange(length).float(), inv)
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return (x * cos + turned * sin).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.heads, self.kv, self.dim = cfg.num_attention_heads, cfg.num_key_value_heads, cfg.head_dim
        self.q_proj = Linear(cfg.hidden_size, self.heads * self.dim)
        self.k_proj = Linear(cfg.hidden_size, self.kv * self.dim)
        self.v_proj = Linear(cfg.hidden_size, self.kv * self.dim)
        self.o_proj = Linear(self.heads * self.dim, cfg.hidden_size)
        self.q_norm = RMSNorm(self.dim, cfg.rms_norm_eps)
        self.k_norm = RMSNorm(self.dim, cfg.rms_norm_eps)

    def forward(self, x, cos, sin, mask, past=None):
        b, t, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(b, t, self.heads, self.dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(b, t, self.kv, self.dim)).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv, self.dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            k, v = past.extend(self, k, v)
        s = k.shape[2]
        group = self.heads // self.kv
        # Group the query heads onto their shared key head instead of copying keys.
        q = q.reshape(b, self.kv, group * t, self.dim)
        scores = torch.matmul(q, k.transpose(2, 3)) * self.dim ** -0.5
        scores = scores.view(b, self.kv, group, t, s) + mask
        weights = torch.softmax(scores, -1).to(v.dtype).view(b, self.kv, group * t, s)
        out = torch.matmul(weights, v).view(b, self.heads, t, self.dim)
        return self.o_proj(out.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.gate_proj = Linear(cfg.hidden_size, cfg.intermediate_size)
        self.up_proj = Linear(cfg.hidden_size, cfg.intermediate_size)
        self.down_proj = Linear(cfg.intermediate_size, cfg.hidden_size)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.self_attn = Attention(cfg)
        self.mlp = MLP(cfg)
        self.input_layernorm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)

    def forward(self, x, cos, sin, mask, past=None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        return x + self.mlp(self.post_attention_layernorm(x))


class Inner(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.hidden_size)
        self.layers = nn.ModuleList(Block(cfg) for _ in range(cfg.num_hidden_layers))
        self.norm = RMSNorm(cfg.hidden_size, cfg.rms_norm_eps)


class Qwen3(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.model = Inner(cfg)
        self.tables = rope_tables(cfg, cfg.max_position_embeddings)
        self.run_block = Block.forward
        self._init()

    def _init(self):
        nn.init.normal_(self.model.embed_tokens.weight, std=0.03)
        for name, p in self.named_parameters():
            if p.ndim == 2 and "embed" not in name:
                nn.init.normal_(p, std=p.shape[1] ** -0.5 * 0.8)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(p)

    def compile(self):
        """One compiled block serves all layers, so compilation is paid once."""
        self.run_block = torch.compile(Block.forward, dynamic=True)

    def hidden(self, ids):
        t = ids.shape[1]
        cos, sin = self.tables[0][:t], self.tables[1][:t]
        mask = torch.full((t, t), -1e9).triu(1)
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = self.run_block(layer, x, cos, sin, mask)
        return self.model.norm(x)

    def loss(self, ids, targets, weights):
        """Weighted cross-entropy; logits only where an answer is judged."""
        keep = weights > 0
        h = self.hidden(ids)[keep]
        logits = F.linear(h, self.model.embed_tokens.weight).float()
        each = F.cross_entropy(logits, targets[keep], reduction="none")
        w = weights[keep]
        right = ((logits.argmax(-1) == targets[keep]).float() * w).sum()
        return (each * w).sum(), w.sum(), right.detach()
