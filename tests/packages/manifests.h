// Manifests in the shape of published ones.
#pragma once

namespace expert::test {

// Schema 2.0 with everything published manifests surprise with: an absolute Windows path as base, empty hashes,
// comments, a template outside the schema's list, min_p, a lower-case licence.
inline constexpr const char* kPublished = R"({
  "name": "expert-sql", "version": "0.3.0", "schema_version": "2.0",
  "_comment": "free text", "description": "Text to SQL", "author": null, "license": "cc-by-4.0", "tags": ["sql"],
  "base_models": [{
    "name": "F:\\models\\Qwen3-0.6B", "sha256": "", "quantization": "int4", "prompt_template": "qwen3",
    "rope_scaling": {"type": "ntk-by-parts", "factor": 8.0, "max_position_embeddings": 32768,
                     "original_max_position_embeddings": 8192, "fine_grained": true},
    "adapters": [{"type": "DoRA", "target_modules": ["q_proj", "v_proj"], "r": 12, "alpha": 24, "scaling": "default",
                  "dropout": 0.1, "size_bytes": 0, "sha256": ""}]
  }],
  "soft_prompts": [],
  "capabilities": ["language:en", "format:sql", "database:postgres", "task:text2sql"],
  "routing": {"keywords": ["sql", "find all"], "exclude_keywords": ["what is"], "router_hint": "database=sql", "priority": 0.85},
  "constraints": {"max_chain": 10, "load_order": 6, "incompatible_with": [], "requires": []},
  "perf": {"latency_ms_overhead": 2.5, "vram_mb_overhead": 18, "supported_batch_sizes": [1]},
  "runtime": {"candle_compatible": true, "attention_kernel": "flash-v2"},
  "training": {"dataset": {"path": "datasets/train.jsonl", "_comment": "x"}, "config": {"method": "sft", "epochs": 1.5},
               "decoding": {"use_grammar": true, "grammar_type": "sql", "grammar_file": "grammar.gbnf", "validation": "parser",
                            "stop_sequences": [";", "\n\n"], "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0}},
  "evaluation": {"test_cases": "tests/x.json"}, "quality_metrics": {"benchmark_score": 9.6}, "integrity": null,
  "unknown_key": {"kept": [1, 2]}
})";

inline constexpr const char* kFirstSchema = R"({
  "name": "json", "version": "1.0.0-alpha.1", "description": "x",
  "base_model": {"name": "Qwen/Qwen3-0.6B", "sha256": "sha256:00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff"},
  "adapters": [{"type": "lora", "target_modules": ["q_proj"], "r": 8, "alpha": 16, "path": "weights/adapter.safetensors"}],
  "capabilities": ["format:json"], "load_order": 2, "requires": ["other@>=1.0.0"]
})";

}  // namespace expert::test
