"""Manifests (schema 2.0) of the bundled experts, with measured numbers only."""
import hashlib
import json
from pathlib import Path

from fingerprint import base_fingerprint

MODELS = Path(__file__).resolve().parent.parent / "models"
LAYOUT = ("ChatML. With a schema: a system message 'Schema:' + newline + schema text, preceded by the line 'Dialect: sql' "
          "when the manifest implies it. The body follows the prompt after one blank line. "
          "A format request ('Reply as JSON with key query') is the last line of the prompt.")

ABOUT = {
    "sql": {
        "description": "Turns English requests about one table of a given schema into SQLite statements.",
        "capabilities": ["task:text2sql", "database:sql", "format:sql", "language:en"],
        "keywords": ["sql", "select", "find all", "find", "list", "show", "show all", "get all", "fetch", "count", "how many",
                     "rows", "records", "entries", "table", "columns", "older than", "younger than", "cheaper than",
                     "greater than", "less than", "more than", "at least", "at most", "between", "sorted by", "ordered by",
                     "order by", "group by", "average", "maximum", "minimum", "distinct", "where", "whose", "insert into",
                     "update"],
        "exclude_keywords": ["file", "files", "folder", "directory", "lines", "classify", "extract", "explain", "why", "who are you",
                             "poem", "translate"],
        "priority": 0.8, "load_order": 6, "tags": ["sql", "sqlite", "database"],
    },
    "json": {
        "description": "Extracts named fields from a text as one JSON object (numbers, strings, booleans, null, lists).",
        "capabilities": ["task:extraction", "feature:json-object", "language:en"],
        "keywords": ["extract", "extract all", "as json", "into json", "to json", "json object", "json with", "pull out",
                     "fields", "collect", "all values"],
        "exclude_keywords": ["with key", "the key", "key query", "key command", "classify", "sql", "file", "files", "folder"],
        "priority": 0.75, "load_order": 5, "tags": ["json", "extraction"],
    },
    "jsonfmt": {
        "description": "Gives any answer as a JSON object with the key that the prompt names. Made to be used together with another expert.",
        "capabilities": ["task:formatting", "feature:json-wrap", "language:en"],
        "keywords": ["json with key", "json with the key", "json under", "key query", "key command", "as json with", "in json with key",
                     "reply as json", "answer as json", "return json", "use json"],
        "exclude_keywords": ["extract", "without json"],
        "priority": 0.7, "load_order": 2, "tags": ["json", "format"],
    },
    "shell": {
        "description": "Turns English requests about files and folders into POSIX shell commands. It writes commands; it never runs them.",
        "capabilities": ["task:text2shell", "tech:shell", "language:en"],
        "keywords": ["file", "files", "folder", "directory", "lines", "line", "copy", "move", "rename", "delete the file", "remove the file",
                     "sort", "append", "words", "bytes", "first lines", "last lines", "shell", "command", "txt", "csv", "log", "md",
                     "search", "replace", "upper case"],
        "exclude_keywords": ["table", "rows", "schema", "classify", "extract", "explain", "why"],
        "priority": 0.75, "load_order": 6, "tags": ["shell", "posix", "files"],
    },
    "classify": {
        "description": "Names the topic of a short text: sports, food, music, weather, money, travel, health, technology, garden, animals, school or law.",
        "capabilities": ["task:classification", "language:en"],
        "keywords": ["classify", "label", "labels", "category", "topic", "which label", "what is this about", "about"],
        "exclude_keywords": ["table", "rows", "file", "folder", "extract"],
        "priority": 0.75, "load_order": 7, "tags": ["classification", "topics"],
    },
}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _info(folder: Path) -> dict:
    file = folder / "training.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _metrics(name: str, models: Path) -> dict:
    """Scores out of models/results.json; zeros until they are measured."""
    file = models / "results.json"
    none = {"_comment": "not measured yet", "benchmark_score": 0, "base_model_score": 0, "improvement_percent": 0,
            "win_rate_vs_base": 0, "test_queries": 0, "checkpoint": "final", "test_date": "1970-01-01"}
    if not file.exists():
        return none
    results = json.loads(file.read_text())
    cells = {(c["cases"], c["active"]): c for c in results["cells"]}
    own, base = cells.get((name, name)), cells.get((name, "base"))
    if not own or not base:
        return none
    return {"_comment": "scores are percent of unseen cases that are right, 0-100; see models/results.json",
            "benchmark_score": own["percent"], "base_model_score": base["percent"],
            "improvement_percent": round(own["percent"] - base["percent"], 1),
            "win_rate_vs_base": round(max(0, own["right"] - base["right"]) / own["n"], 3),
            "test_queries": own["n"], "checkpoint": "final", "test_date": results["date"]}


def write_manifest(name: str, folder: Path) -> None:
    """folder: models/experts/NAME; the base it is bound to stands beside it in models/base."""
    about, models = ABOUT[name], folder.parent.parent
    adapter = json.loads((folder / "adapter_config.json").read_text())
    weights = folder / "adapter_model.safetensors"
    info = _info(folder)
    manifest = {
        "name": f"expert-{name}", "version": "0.1.0", "schema_version": "2.0", "description": about["description"],
        "author": "libexpert",
        "base_models": [{
            "name": "expert-tiny", "sha256": base_fingerprint(models / "base" / "model.safetensors"), "quantization": "bf16", "prompt_template": "chatml", "_prompt_template": LAYOUT,
            "adapters": [{"type": "lora", "target_modules": adapter["target_modules"], "r": adapter["r"], "alpha": adapter["lora_alpha"],
                          "scaling": "standard", "dropout": 0.0, "size_bytes": weights.stat().st_size, "sha256": sha256(weights)}],
        }],
        "capabilities": about["capabilities"],
        "routing": {"keywords": about["keywords"], "exclude_keywords": about["exclude_keywords"], "priority": about["priority"]},
        "constraints": {"max_chain": 10, "load_order": about["load_order"], "incompatible_with": [], "requires": []},
        "perf": {"latency_ms_overhead": 1.0, "vram_mb_overhead": 2, "supported_batch_sizes": [1, 2, 4, 8, 16, 32],
                 "_comment": "nominal; the base has about five million parameters"},
        "training": {
            "dataset": {"type": "synthetic", "path": "training/tasks_experts.py", "_comment": "no stored data: the program is the data set"},
            "config": {"method": "sft", "adapter_type": "lora", "target_modules": adapter["target_modules"],
                       "epochs": 1, "learning_rate": 0.002, "batch_size": 16, "gradient_accumulation_steps": 1, "warmup_steps": 30,
                       "lr_scheduler": "linear", "rank": adapter["r"], "alpha": adapter["lora_alpha"],
                       **{k: info[k] for k in ("steps", "tokens", "seed") if k in info}},
            "decoding": {"use_grammar": False, "stop_sequences": ["<|im_end|>"], "temperature": 0.0},
            "base_model_version": "expert-tiny-0.1.0",
        },
        "quality_metrics": _metrics(name, models),
        "license": "Apache-2.0", "tags": about["tags"],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    for n in ABOUT:
        if (MODELS / "experts" / n / "adapter_config.json").exists():
            write_manifest(n, MODELS / "experts" / n)
