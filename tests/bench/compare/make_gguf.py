#!/usr/bin/env python3
"""A Qwen3 directory (BF16 safetensors, vocab.json) as GGUF.   make_gguf.py HF_DIR OUT.gguf bf16|q8_0|q4_0

Norms stay F32; under q4_0 the embedding, which is the tied head too, is Q8_0.
"""

import json
import sys
from pathlib import Path

import gguf
import torch  # noqa: F401  (safetensors reads BF16 through it)
from safetensors import safe_open

TYPES = {"bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}
FILE_TYPES = {"bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0}
PARTS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}  # fmt: skip


def gguf_name(name, tied):
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": None if tied else "output.weight"}  # fmt: skip
    if name in fixed:
        return fixed[name]
    parts = name.split(".")
    return f"blk.{parts[2]}.{PARTS['.'.join(parts[3:-1])]}.weight"


def add_configuration(writer, config, kind):
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(FILE_TYPES[kind])


def add_tokenizer(writer, source, size):
    tokens = [f"[PAD{i}]" for i in range(size)]
    kinds = [gguf.TokenType.UNUSED] * size
    for file, kind in (("vocab.json", gguf.TokenType.NORMAL), ("added_tokens.json", gguf.TokenType.CONTROL)):
        for token, i in json.loads((source / file).read_text()).items():
            tokens[i], kinds[i] = token, kind
    lines = (source / "merges.txt").read_text(encoding="utf-8").split("\n")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([line for line in lines if line.strip() and not line.startswith("#version")])
    writer.add_add_bos_token(False)


def main():
    source, out, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    config = json.loads((source / "config.json").read_text())
    writer = gguf.GGUFWriter(out, config["model_type"])
    add_configuration(writer, config, kind)
    add_tokenizer(writer, source, config["vocab_size"])
    with safe_open(source / "model.safetensors", "pt") as file:
        for name in file.keys():
            target = gguf_name(name, config["tie_word_embeddings"])
            if target is None:
                continue
            values = file.get_tensor(name).float().numpy()
            if values.ndim == 1:
                writer.add_tensor(target, values)
                continue
            vocabulary = target in ("token_embd.weight", "output.weight")
            tensor_type = TYPES["q8_0" if vocabulary and kind == "q4_0" else kind]
            writer.add_tensor(target, gguf.quants.quantize(values, tensor_type), raw_dtype=tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
