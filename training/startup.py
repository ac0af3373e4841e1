"""A structured start: the copying circuit is wired in before training.

A small model spends a large part of its tokens on discovering the induction
circuit (a head that looks one token back, and a head that finds where the
current token stood before and copies its successor).  The circuit is known,
so it is written into the initial weights; training then reshapes it freely.

Coordinates of the residual stream at the start:
  0..190     token content (random)
  191..254   the previous token's content, written by layer 0
  255        a constant, which position-only attention reads
"""
import torch

CONTENT, CONST = 191, 255


def _pairs(head_dim):
    """RoPE frequency of pair i; the pair is the dimensions (i, i + head_dim / 2)."""
    half = head_dim // 2
    return half, 10000.0 ** (-torch.arange(half).float() / half)


@torch.no_grad()
def wire(model, seed=0, scale=0.05, copy_gain=3.0):
    g = torch.Generator().manual_seed(seed)
    cfg = model.cfg
    e = model.model.embed_tokens.weight
    e.zero_()
    e[:, :CONTENT] = torch.randn(e.shape[0], CONTENT, generator=g) * scale
    e[:, CONST] = 4 * scale
    look = torch.linalg.qr(torch.randn(CONTENT, 64, generator=g))[0].T      # 64 x content
    _previous_token(model.model.layers[0], cfg, look)
    _induction(model.model.layers[1], cfg, look, g, copy_gain)
    for layer in model.model.layers[2:]:
        _same_token(layer, cfg, g)


def _previous_token(layer, cfg, look):
    """Head 0 (and 1, its twin) attends one position back and writes what it sees."""
    a, d = layer.self_attn, cfg.head_dim
    half, freq = _pairs(d)
    q, k = torch.zeros(d), torch.zeros(d)
    for i in range(7):
        q[i] = 1.0
        k[i], k[i + half] = torch.cos(freq[i]), torch.sin(freq[i])
    for h in (0, 1):
        a.q_proj.weight[h * d:(h + 1) * d].zero_()
        a.q_proj.weight[h * d:(h + 1) * d, CONST] = q * 0.3
    a.k_proj.weight[:d].zero_()
    a.k_proj.weight[:d, CONST] = k * 0.3
    a.q_norm.weight.fill_(2.5)
    a.k_norm.weight.fill_(2.5)
    a.v_proj.weight[:d].zero_()
    a.v_proj.weight[:d, :CONTENT] = look
    for h in (0, 1):
        a.o_proj.weight[CONTENT:CONTENT + d, h * d:(h + 1) * d] = torch.eye(d) * 0.5 * 0.07


def _low(d, count=18):
    """Dimensions of the slow RoPE pairs, where a match survives the distance."""
    half = d // 2
    return list(range(half - count, half)) + list(range(d - count, d))


def _induction(layer, cfg, look, g, gain):
    """Finds where the current token was the previous one, and copies from there."""
    a, d = layer.self_attn, cfg.head_dim
    dims = _low(d)
    basis = torch.linalg.qr(torch.randn(CONTENT, 128, generator=g))[0].T
    for kv in range(cfg.num_key_value_heads):
        mix = torch.randn(len(dims), 64, generator=g) / 8
        key = torch.zeros(d, cfg.hidden_size)
        query = torch.zeros(d, cfg.hidden_size)
        key[dims, CONTENT:CONTENT + 64] = mix
        query[dims, :CONTENT] = mix @ look
        a.k_proj.weight[kv * d:(kv + 1) * d] = key
        for h in (2 * kv, 2 * kv + 1):
            a.q_proj.weight[h * d:(h + 1) * d] = query
            a.o_proj.weight[:CONTENT, h * d:(h + 1) * d] = basis[kv * 64:(kv + 1) * 64].T * gain * 0.5 * 0.07
        a.v_proj.weight[kv * d:(kv + 1) * d].zero_()
        a.v_proj.weight[kv * d:(kv + 1) * d, :CONTENT] = basis[kv * 64:(kv + 1) * 64]
    a.q_norm.weight.fill_(1.5)
    a.k_norm.weight.fill_(1.5)


def _same_token(layer, cfg, g):
    """One key head compares like with like; its output starts at zero."""
    a, d = layer.self_attn, cfg.head_dim
    dims = _low(d)
    m = torch.randn(len(dims), cfg.hidden_size, generator=g) / 16
    m[:, CONST] = 0
    a.k_proj.weight[:d].zero_()
    a.q_proj.weight[:d].zero_()
    a.k_proj.weight[dims] = m
    a.q_proj.weight[dims] = m
