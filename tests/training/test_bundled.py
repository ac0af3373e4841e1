"""The bundled model: what it must not have seen, its sizes, its generators."""
import json
import random
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
sys.path.insert(0, str(ROOT / "training"))

import judges                      # noqa: E402
import requests_grammar as rg      # noqa: E402
import tasks_base                  # noqa: E402
import tasks_experts               # noqa: E402
from words import Words, bucket, is_rude  # noqa: E402

EXPERTS = ("sql", "json", "jsonfmt", "shell", "classify")
SAMPLE = 3000


def training_texts(n=SAMPLE):
    rng, words = random.Random(123), Words("train")
    for name in EXPERTS:
        for _ in range(n // 5):
            yield tasks_experts.EXPERTS[name](rng, words)
    for _ in range(n):
        yield tasks_base.document(rng, words)


@pytest.fixture(scope="module")
def corpus():
    return ["\n".join(text for _, text in doc) for doc in training_texts()]


def test_word_splits_do_not_meet():
    train, test = Words("train"), Words("test")
    assert not set(w.lower() for w in train.lower + train.names) & set(w.lower() for w in test.lower + test.names)
    assert "users" not in train.lower and "user" not in train.lower
    assert all(bucket(w) != 0 for w in train.lower)


def test_readme_question_is_unseen(corpus):
    for text in corpus:
        assert not re.search(r"\busers?\b", text), text
        assert not re.search(r"\bolder than 25\b", text)
        assert not re.search(r"\w+\(id, ?name, ?age\)", text)


def test_test_identifiers_are_unseen(corpus):
    seen = set(re.findall(r"[A-Za-z]+(?:_[a-z]+)?", " ".join(corpus)))
    for case in tasks_experts.sql_cases(300, 2024):
        names = set(case["tables"]) | {c for cols in case["tables"].values() for c in cols}
        assert not names & seen, names & seen
    for case in tasks_experts.shell_cases(300, 2024):
        s = case["slots"]
        assert not {s["d"], s["x"], s["f"].split(".")[0], s["g"].split(".")[0], s["w"], s["v"]} & seen


def test_held_out_shapes_are_never_trained():
    rng, words = random.Random(5), Words("train")
    made = []
    keep, rg_sql = rg.sql_text, rg.sql_text
    tasks_experts.rg.sql_text = lambda q: made.append(q.shape()) or keep(q)
    try:
        for _ in range(800):
            tasks_experts.sql(rng, words)
    finally:
        tasks_experts.rg.sql_text = rg_sql
    assert made and not set(made) & rg.HELD_OUT_SHAPES


def test_base_answers_are_not_in_the_experts_languages():
    rng, words = random.Random(9), Words("train")
    statement = re.compile(r"SELECT .* FROM |DELETE FROM |INSERT INTO \w+ \(|UPDATE \w+ SET |\{\"\w+\": \"|^(ls|cat|grep|wc|sort|sed|find) [-'a-z]*\w+\.\w+$")
    for task in (tasks_base.plan, tasks_base.files, tasks_base.lookup, tasks_base.topics, tasks_base.columns):
        for _ in range(300):
            for role, text in task(rng, words):
                assert role != "assistant" or not statement.search(text), text


def test_generators_are_deterministic():
    def draw():
        rng, words = random.Random(77), Words("train")
        return [tasks_base.document(rng, words) for _ in range(50)] + \
            [make(rng, words) for make in tasks_experts.EXPERTS.values() for _ in range(20)]
    assert draw() == draw()
    assert tasks_experts.sql_cases(20, 1) == tasks_experts.sql_cases(20, 1)


def test_no_rude_words(corpus):
    words = Words("train").lower + Words("train").names + Words("test").lower + Words("test").names
    assert not [w for w in words if is_rude(w)]
    seen = set(re.findall(r"[A-Za-z]+", " ".join(corpus)))
    assert len(seen) > 3000


def test_reference_answers_are_judged_right():
    sets = [tasks_experts.sql_cases(25, 3), tasks_experts.sql_cases(15, 3, "shapes"), tasks_experts.shell_cases(25, 3),
            tasks_experts.json_cases(25, 3), tasks_experts.classify_cases(10, 3), tasks_experts.jsonfmt_cases(25, 3)]
    for cases in sets + [tasks_experts.composed(sets[0], "query", 3), tasks_experts.composed(sets[2], "command", 3)]:
        for c in cases:
            assert judges.judge(c, c["expected"]), c
            assert not judges.judge(c, ""), c
            assert not judges.judge(c, "x" + c["expected"]), c


@pytest.mark.parametrize("command", ["rm -r /", "cat ../x", "ls; rm a", "ls $(pwd)", "ls `pwd`", "sed 's/a/b/e' f", "find . -exec ls",
                                     "find d -delete", "python x", "cat a && ls", "sort --compress-program=sh f", "cat /etc/passwd",
                                     "echo 'a' > /tmp/x", "cat '/etc/passwd'"])
def test_unsafe_commands_are_not_run(command):
    assert not judges.is_safe(command)


def test_small_cases_file_matches_the_judges():
    cases = [json.loads(line) for line in (Path(__file__).parent / "cases_small.jsonl").read_text().splitlines()]
    assert 30 <= len(cases) <= 60 and any(c["id"] == "readme" for c in cases)
    for c in cases:
        assert judges.judge(c, c["expected"]), c


def parameters(path):
    """Shapes out of a safetensors header, without torch."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    total = 0
    for name, info in header.items():
        if name != "__metadata__":
            n = 1
            for s in info["shape"]:
                n *= s
            total += n
    return total


def test_sizes():
    size = sum(p.stat().st_size for p in MODELS.rglob("*") if p.is_file())
    assert size <= 20_000_000
    base = parameters(MODELS / "base/model.safetensors")
    assert 4_500_000 <= base <= 10_500_000
    for name in EXPERTS:
        folder = MODELS / "experts" / name
        assert json.loads((folder / "adapter_config.json").read_text())["r"] <= 16
        assert parameters(folder / "adapter_model.safetensors") <= 0.15 * base


@pytest.mark.parametrize("name", EXPERTS)
def test_manifest(name):
    folder = MODELS / "experts" / name
    m = json.loads((folder / "manifest.json").read_text())
    assert re.fullmatch(r"expert-[a-z0-9-]+", m["name"]) and m["schema_version"] == "2.0" and m["license"] == "Apache-2.0"
    adapter = m["base_models"][0]["adapters"][0]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["alpha"]) == (config["r"], config["lora_alpha"])
    assert m["routing"]["keywords"] and 0 <= m["routing"]["priority"] <= 1
    assert adapter["size_bytes"] == (folder / "adapter_model.safetensors").stat().st_size


def test_prompt_layout_is_the_documented_one():
    case = tasks_experts.README_CASE
    assert tasks_experts.messages(case) == [("system", "Dialect: sql\nSchema:\nusers(id,name,age)"), ("user", "Find all users older than 25")]


def test_chat_template_equals_the_training_layout():
    transformers = pytest.importorskip("transformers")
    from tokenizer import Encoder
    tok = transformers.AutoTokenizer.from_pretrained(MODELS / "base")
    doc = tasks_experts.messages(tasks_experts.README_CASE)
    text = tok.apply_chat_template([{"role": r, "content": t} for r, t in doc], tokenize=False, add_generation_prompt=True)
    encoder = Encoder(MODELS / "base")
    assert text == encoder.prompt(doc)
    assert tok(text).input_ids == encoder.ids(text)


@pytest.mark.parametrize("name", EXPERTS)
def test_peft_loads_each_expert(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    import lora
    base = transformers.AutoModelForCausalLM.from_pretrained(MODELS / "base", dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, str(MODELS / "experts" / name)).float()
    ours = lora.load_base(MODELS / "base")
    lora.activate(ours, lora.load_expert(MODELS / "experts" / name))
    ids = torch.arange(10, 60)[None]
    with torch.no_grad():
        a = model(ids).logits
        b = torch.nn.functional.linear(ours.hidden(ids), ours.model.embed_tokens.weight)
    assert (a - b).abs().max() <= 1e-4 * a.abs().max()
