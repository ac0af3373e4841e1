"""Random LoRA experts (r = 16 on all seven linear layers) as PEFT directories and as GGUF, from one source of numbers.

    random_lora.py HF_DIR GGUF_PREFIX COUNT     writes GGUF_PREFIX-0.gguf …
"""

import json
import sys
from pathlib import Path

import numpy as np

RANK = 16
GGUF_NAMES = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
              "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}  # fmt: skip


def shapes(config):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    return {"self_attn.q_proj": (hidden, q), "self_attn.k_proj": (hidden, kv), "self_attn.v_proj": (hidden, kv),
            "self_attn.o_proj": (q, hidden), "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner),
            "mlp.down_proj": (inner, hidden)}  # fmt: skip


def tensors(config, seed, rank=RANK):
    random = np.random.default_rng(100 + seed)
    for layer in range(config["num_hidden_layers"]):
        for name, (inputs, outputs) in shapes(config).items():
            a = (random.standard_normal((rank, inputs), np.float32) * 0.01).astype(np.float16)
            b = (random.standard_normal((outputs, rank), np.float32) * 0.01).astype(np.float16)
            yield layer, name, a, b


def write_lora(model, directory, seed, rank=RANK):
    config = json.loads((Path(model) / "config.json").read_text())
    header, parts, at = {}, [], 0
    for layer, name, a, b in tensors(config, seed, rank):
        for letter, values in (("A", a), ("B", b)):
            key = f"base_model.model.model.layers.{layer}.{name}.lora_{letter}.weight"
            header[key] = {"dtype": "F16", "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
            parts.append(values.tobytes())
            at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    directory.mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    targets = [name.split(".")[1] for name in shapes(config)]
    (directory / "adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "bias": "none",
         "target_modules": targets}))  # fmt: skip


def write_gguf(model, path, seed):
    import gguf

    config = json.loads((Path(model) / "config.json").read_text())
    writer = gguf.GGUFWriter(path, config["model_type"])
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    for layer, name, a, b in tensors(config, seed):
        key = f"blk.{layer}.{GGUF_NAMES[name.split('.')[1]]}.weight"
        writer.add_tensor(f"{key}.lora_a", a)
        writer.add_tensor(f"{key}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    for i in range(int(sys.argv[3])):
        write_gguf(sys.argv[1], f"{sys.argv[2]}-{i}.gguf", i)
