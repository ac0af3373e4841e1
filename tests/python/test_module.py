"""The Python module: names, types, errors, streams, cancelling, threads, asyncio, fork."""

import ast
import asyncio
import copy
import gc
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import expert
import numpy
import pytest

QUESTION = {"prompt": "Find all users older than 25", "schema": "users(id,name,age)", "temperature": 0}
LONG = {"experts": [], "max_tokens": 900, "ignore_eos": True, "temperature": 0}


# -- results ----------------------------------------------------------------------------------------------------------


def test_infer(engine):
    result = engine.infer("Find all users older than 25", schema="users(id,name,age)", experts=["sql"], max_tokens=64,
                          temperature=0, seed=1, stop=[";"])  # fmt: skip
    assert isinstance(result.text, str) and result.output == result.text.strip()
    assert engine.detokenize(result.tokens).startswith(result.text)
    assert result.experts_used == [("expert-sql", result.experts_used[0].version, 1.0)]
    assert result.finish_reason in ("stop", "length")
    assert result.usage.total_tokens == result.usage.prompt_tokens + result.usage.completion_tokens
    assert result.latency_ms >= result.timings.first_token_ms > 0
    assert result.plan["parameters"]["temperature"] == 0


def test_experts_in_every_spelling(engine, sql_directory):
    with engine.load_expert(sql_directory) as sql:
        used = [
            engine.infer(**{**QUESTION, "experts": experts, "max_tokens": 4}).experts_used
            for experts in ([sql], [(sql, 1.0)], ["sql"], [("expert-sql", 1)], [sql_directory], [[sql, 1]])
        ]
        assert all(use == used[0] for use in used)
        both = engine.infer(**{**QUESTION, "experts": [sql, ("jsonfmt", 0.5)], "max_tokens": 4}).experts_used
        assert sorted((e.name, e.weight) for e in both) == [("expert-jsonfmt", 0.5), ("expert-sql", 1.0)]
    assert engine.infer("x", experts=[], max_tokens=2).experts_used == []
    assert [e.name for e in engine.infer(**QUESTION, max_tokens=4).experts_used] == ["expert-sql"]
    assert engine.infer(**QUESTION, experts="auto", max_tokens=4).experts_used[0].name == "expert-sql"


def test_messages_replace_the_prompt(engine):
    options = {"experts": [], "temperature": 0, "max_tokens": 6}
    one = engine.infer("Hello there", **options)
    assert engine.infer(messages=[{"role": "user", "content": "Hello there"}], **options).tokens == one.tokens
    rendered = engine.apply_chat_template([{"role": "user", "content": "Hello there"}])
    assert engine.infer(rendered, raw=True, **options).usage.prompt_tokens == one.usage.prompt_tokens


def test_logprobs(engine):
    result = engine.infer("Hello", experts=[], max_tokens=3, temperature=0, logprobs=2)
    assert len(result.logprobs) >= len(result.tokens)
    for token, position in zip(result.tokens, result.logprobs):
        assert position.token == token and len(position.top) == 2
        assert position.top[0].logprob == pytest.approx(position.logprob)
        assert position.logprob <= 0


def test_logit_bias_and_seed(engine):
    forced = engine.infer("Hello", experts=[], max_tokens=3, temperature=0, logit_bias={65: 1000}, ignore_eos=True)
    assert forced.tokens == [65, 65, 65]
    options = {"experts": [], "temperature": 6.0, "max_tokens": 12}  # the bundled base is sure of most of what it says
    first = engine.infer("Tell a story", seed=3, **options).tokens
    assert engine.infer("Tell a story", seed=3, **options).tokens == first
    assert any(engine.infer("Tell a story", seed=seed, **options).tokens != first for seed in range(4, 9))


# -- streams and handles ----------------------------------------------------------------------------------------------


def test_stream_ends_with_the_result(engine):
    stream = engine.stream("Hello", **{**LONG, "max_tokens": 20})
    chunks = list(stream)
    assert all(chunk.result is None for chunk in chunks[:-1])
    assert "".join(chunk.text for chunk in chunks) == chunks[-1].result.text == stream.result.text
    assert sum(len(chunk.tokens) for chunk in chunks) == 20


def test_a_cancelled_stream_says_so(engine):
    stream = engine.stream("Hello", **LONG)
    next(stream)
    stream.cancel()
    assert list(stream)[-1].result.finish_reason == "cancelled"


def test_handles(engine):
    handle = engine.submit("Hello", **LONG)
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.01)
    assert not handle.done()
    handle.cancel()
    handle.cancel()
    with pytest.raises(expert.CancelledError) as caught:
        handle.result()
    assert caught.value.partial.finish_reason == "cancelled"
    assert handle.done()
    done = engine.submit("Hello", experts=[], max_tokens=2)
    assert done.result().tokens == done.result(timeout=5).tokens


def test_infer_batch_keeps_order_and_errors(engine):
    requests = [{"prompt": text, "experts": [], "max_tokens": 3, "temperature": 0} for text in ("one", "two", "three")]
    alone = [engine.infer(**request).tokens for request in requests]
    assert [result.tokens for result in engine.infer_batch(requests)] == alone
    broken = [requests[0], {"prompt": ""}, requests[2]]
    with pytest.raises(expert.InvalidRequestError):
        engine.infer_batch(broken)
    outcomes = engine.infer_batch(broken, return_exceptions=True)
    assert isinstance(outcomes[1], expert.InvalidRequestError)
    assert [outcomes[0].tokens, outcomes[2].tokens] == [alone[0], alone[2]]


def test_a_batch_larger_than_the_queue(home, engine):
    base = engine.info()["path"]
    with expert.Engine(base, threads=1, home=home, max_queue=2) as small:
        requests = [{"prompt": f"number {i}", "experts": [], "max_tokens": 2} for i in range(7)]
        assert len(small.infer_batch(requests)) == 7


def test_byte_budgets(home, engine):
    base, request = engine.info()["path"], dict(prompt="Count to twenty, slowly, please. " * 3, experts=[], max_tokens=2)
    with expert.Engine(base, threads=1, home=home, prefix_cache_bytes=0, expert_cache_bytes=1 << 20) as small:
        assert [small.infer(**request).usage.cached_tokens for _ in range(2)] == [0, 0]
        assert small.stats()["experts"]["tiers"]["host"]["budget_bytes"] == 1 << 20
    with pytest.raises(expert.InvalidRequestError):
        expert.Engine(base, expert_cache_bytes=0)


def widened(base, to, vocab):
    """A copy of a BF16 model with a tied head whose vocabulary goes on with small random rows."""
    shutil.copytree(base, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, "vocab_size": vocab}))
    tensors = (to / "model.safetensors").read_bytes()
    size = 8 + int.from_bytes(tensors[:8], "little")
    header, data = json.loads(tensors[8:size]), tensors[size:]
    embedding = header["model.embed_tokens.weight"]
    last = embedding["data_offsets"][1]
    rows = numpy.random.default_rng(1).normal(scale=0.02, size=(vocab - embedding["shape"][0], embedding["shape"][1]))
    added = (rows.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    embedding["shape"][0] = vocab
    embedding["data_offsets"][1] = last + len(added)
    for tensor in (t for name, t in header.items() if name != "__metadata__" and t["data_offsets"][0] >= last):
        tensor["data_offsets"] = [at + len(added) for at in tensor["data_offsets"]]
    text = json.dumps(header).encode()
    (to / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[:last] + added + data[last:])
    return to


def test_a_head_screen_is_used_where_a_head_is_large(home, engine, tmp_path):
    assert engine.stats()["head_screen"] is None  # the bundled model's head is small
    wide = widened(Path(engine.info()["path"]), tmp_path / "wide", vocab=20000)
    request = dict(prompt="Once upon a time", experts=[], max_tokens=8, ignore_eos=True, seed=3)
    with (
        expert.Engine(wide, threads=1, home=home) as screened,
        expert.Engine(wide, threads=1, home=home, head_screen=False) as whole,
    ):
        for sampling in (dict(temperature=0), dict(temperature=0.8, top_k=20), dict(temperature=0.8)):
            assert screened.infer(**request, **sampling).tokens == whole.infer(**request, **sampling).tokens
        screen = screened.stats()["head_screen"]
        assert screen["calls"] == 16  # greedy and top_k
        assert screen["bytes"] > 0 and screen["read_bytes"] > 0
        assert whole.stats()["head_screen"] is None


def test_threads_get_what_one_gets(engine):
    expected = engine.infer(**QUESTION, experts=["sql"], max_tokens=8).tokens
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(engine.infer(**QUESTION, experts=["sql"], max_tokens=8).tokens))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 6


def test_the_interpreter_goes_on_while_the_engine_works(engine):
    counted = 0
    handle = engine.submit("Hello", **{**LONG, "max_tokens": 300})
    waiter = threading.Thread(target=handle.result)
    waiter.start()
    while waiter.is_alive():
        counted += 1
        time.sleep(0.001)
    assert counted > 3


def test_asyncio(engine):
    async def work():
        results = await asyncio.gather(*(engine.ainfer(f"n {i}", experts=[], max_tokens=3) for i in range(4)))
        text = "".join([chunk.text async for chunk in engine.astream("Hello", **{**LONG, "max_tokens": 5})])
        task = asyncio.ensure_future(engine.ainfer("Hello", **LONG))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return results, text

    results, text = asyncio.run(work())
    assert len(results) == 4 and text


def test_keyboard_interrupt_cancels(engine, tmp_path):
    program = (
        "import expert, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # tests that run in the background ignore it
        f"engine = expert.Engine({engine.info()['path']!r}, threads=1)\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"  # however fast the machine is, the signal finds an answer in the making
        "        engine.infer('Hello', experts=[], max_tokens=900, ignore_eos=True)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', engine.infer('Hello', experts=[], max_tokens=1).usage.completion_tokens)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "EXPERT_HOME": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    output = ""
    for _ in range(12):
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=5)
            break
        except subprocess.TimeoutExpired:
            pass  # Python drops an interrupt that meets a destructor; people press the keys again
    else:
        process.kill()
    assert output.startswith("interrupted"), output
    assert process.returncode == 0


# -- errors -----------------------------------------------------------------------------------------------------------


def test_the_tree_of_errors():
    assert issubclass(expert.LoadError, expert.ExpertError)
    for kind in (expert.ManifestError, expert.SignatureError, expert.IncompatibleError, expert.UnsupportedError):
        assert issubclass(kind, expert.LoadError)
    for kind in (expert.InvalidRequestError, expert.OutOfMemoryError, expert.GrammarError, expert.CancelledError):
        assert issubclass(kind, expert.InferenceError)
    assert issubclass(expert.InvalidRequestError, ValueError)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": "warm"},
        {"temperature": True},
        {"max_tokens": 1.5},
        {"max_tokens": "8"},
        {"stop": 5},
        {"stop": [5]},
        {"experts": 5},
        {"experts": {"sql": 1}},
        {"experts": [5]},
        {"experts": [("sql", "much")]},
        {"schema": 5},
        {"messages": "hello"},
        {"logit_bias": [1]},
        {"raw": 1},
        {"no_such_keyword": 1},
    ],
)
def test_wrong_types_are_type_errors(engine, options):
    with pytest.raises(TypeError):
        engine.infer("x", **options)


def test_a_prompt_that_is_no_text(engine):
    for prompt in (5, b"bytes", ["x"]):
        with pytest.raises(TypeError):
            engine.infer(prompt)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": 1e300},
        {"temperature": 10**400},
        {"top_p": 0},
        {"top_p": 1.1},
        {"min_p": 1},
        {"top_k": -1},
        {"max_tokens": 0},
        {"max_tokens": 2**40},
        {"repetition_penalty": 0},
        {"seed": -1},
        {"seed": 2**64},
        {"logit_bias": {10**8: 1}},
        {"experts": ["no-such-expert"]},
        {"experts": "sql"},
        {"experts": [("sql", float("inf"))]},
        {"stop": ["a\0b"]},
        {"stop": "a\0b"},
        {"caller": "a\0b"},
        {"cache_salt": "a\0b"},
        {"experts": ["sql\0"]},
        {"schema": "\udc80"},
        {"messages": [{"role": "user", "content": "x"}]},
    ],
)
def test_bad_values_are_invalid_requests(engine, options):
    with pytest.raises(expert.InvalidRequestError):
        engine.infer("x", **options)


def test_text_that_c_would_cut_is_refused(engine):
    base = engine.info()["path"]
    for option in ("device", "weights", "kv"):
        with pytest.raises(expert.InvalidRequestError, match=f"{option} contains a NUL"):
            expert.Engine(base, **{option: "auto\0"})
    with pytest.raises(expert.InvalidRequestError, match="pooling contains a NUL"):
        engine.embed("x", pooling="last\0")


class Text(str):
    pass


class Whole(int):
    pass


def test_plain_arguments_and_others_mean_the_same(engine, sql_directory):
    """infer() takes plain arguments a shorter way than the others; both end alike."""
    sql = engine.load_expert(sql_directory)
    plain = {"schema": "users(id,name,age)", "max_tokens": 12, "temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.25,
             "repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 1, "logprobs": 1, "seed": 2**64 - 2,
             "stop": ["SELECT", ";"], "ignore_eos": True, "special_in_text": False, "trace": None, "raw": False,
             "priority": 1, "deadline_ms": 1e6, "caller": "a", "cache_salt": "b", "body": None}  # fmt: skip
    for experts in ([], ["sql"], [sql], [sql, "jsonfmt"], "auto", None):
        spelled = {"experts": experts, **plain}
        others = {**spelled, "schema": Text(plain["schema"]), "max_tokens": numpy.int32(12), "top_p": numpy.float64(0.5),
                  "top_k": Whole(3), "stop": ("SELECT", ";"), "tools": []}  # fmt: skip
        if isinstance(experts, list):
            others["experts"] = tuple((entry, 1.0) for entry in experts)
        one, other = (engine.infer("Find all users", **options) for options in (spelled, others))
        assert one.tokens == other.tokens and one.plan == other.plan and one.experts_used == other.experts_used
        assert one.plan["parameters"]["seed"] == 2**64 - 2 and one.plan["parameters"]["top_p"] == 0.5
    dynamic = {"".join(("max_", "tokens")): 2, "".join(("exp", "erts")): []}  # keys of another object than ours
    assert len(engine.infer("Hello", ignore_eos=True, **dynamic).tokens) == 2


def test_a_weight_is_the_number_that_was_given(engine):
    result = engine.infer("Hello", experts=[("sql", 0.3)], max_tokens=2, temperature=0)
    assert [used.weight for used in result.experts_used] == [0.3]
    assert copy.copy(result) == result


def test_empty_and_broken_prompts(engine):
    for prompt in ("", None, "\ud800"):
        with pytest.raises(expert.InvalidRequestError):
            engine.infer(prompt)
    with pytest.raises(expert.InvalidRequestError) as caught:
        engine.infer("word " * 20000)
    assert isinstance(caught.value, ValueError) and "context" in str(caught.value)


def test_load_errors(engine, tmp_path):
    with pytest.raises(expert.LoadError):
        engine.load_expert(tmp_path / "nothing.expert")
    with pytest.raises(expert.LoadError) as caught:
        expert.Engine(tmp_path / "nothing")
    assert caught.value.hint and str(tmp_path) in caught.value.message
    with pytest.raises(expert.UnsupportedError):
        expert.Engine(engine.info()["path"], device="cuda")
    with pytest.raises(expert.InvalidRequestError, match="q4_0"):
        expert.Engine(engine.info()["path"], weights="q4_0")
    with pytest.raises(TypeError):
        expert.Engine(5)
    with pytest.raises(TypeError):
        engine.load_expert(5)


# -- experts and engines ----------------------------------------------------------------------------------------------


def test_an_expert_and_its_end(new_engine, sql_directory):
    with new_engine.load_expert(sql_directory) as sql:
        assert (sql.name, sql.kinds) == ("expert-sql", ["lora"])
        assert sql.manifest["name"] == "expert-sql" and sql.version == sql.manifest["version"]
        assert sql.size_bytes > 100_000 and isinstance(sql.warnings, list)
        assert [loaded["name"] for loaded in new_engine.experts] == ["expert-sql"]
        assert sql.generate("Find all users", schema="users(id)", temperature=0, max_tokens=8)
    sql.unload()
    with pytest.raises(expert.ClosedError):
        new_engine.infer("x", experts=[sql])


def test_three_lines():
    loaded = expert.Expert.load("sql")
    assert loaded.generate("Find all users older than 25", schema="users(id,name,age)")
    assert expert.Expert.load("json").engine is loaded.engine


def test_route(engine):
    plan = engine.route("Find all users older than 25", schema="users(id,name,age)")
    name, weight, score, reason = plan.experts[0]
    assert (name, weight) == ("expert-sql", 1.0) and 0 < score <= 1 and reason
    assert isinstance(plan.parameters, dict) and plan.explanation and 0 <= plan.confidence <= 1


def test_tokens_round_trip(engine):
    for text in ("SELECT name FROM users;", "ünïcödé 你好 🙂", "a\0b", ""):
        assert engine.detokenize(engine.tokenize(text)) == text
    with pytest.raises(TypeError):
        engine.tokenize(5)
    with pytest.raises(TypeError):
        engine.detokenize("abc")


def test_logits_and_embed_are_numpy(engine):
    ids = engine.tokenize("Find all users")
    base = engine.logits(ids)
    assert base.shape == (len(ids), engine.vocab_size) and base.dtype == numpy.float32
    assert numpy.array_equal(base, engine.logits(ids, experts=[("sql", 0)]))
    assert not numpy.array_equal(base, engine.logits(ids, experts=["sql"]))
    state = engine.embed("hello")
    assert state.shape == (engine.hidden_size,) and numpy.linalg.norm(state) == pytest.approx(1, abs=1e-4)
    with pytest.raises(expert.InvalidRequestError):
        engine.logits([])
    with pytest.raises(expert.InvalidRequestError):
        engine.logits([10**6])


def test_close(new_engine):
    handle = new_engine.submit("Hello", **LONG)
    new_engine.close()
    with pytest.raises(expert.CancelledError):
        handle.result()
    new_engine.close()
    for call in (lambda: new_engine.infer("x"), lambda: new_engine.tokenize("x"), new_engine.stats):
        with pytest.raises(expert.ClosedError):
            call()


def test_close_with_drain_waits(new_engine):
    handle = new_engine.submit("Hello", **{**LONG, "max_tokens": 30})
    new_engine.close(drain=True)
    assert len(handle.result().tokens) == 30


def test_stats_and_info_are_dicts(engine):
    assert isinstance(engine.stats(), dict)
    assert engine.info()["threads"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_fork_calls_fail_and_nothing_hangs(new_engine):
    child = os.fork()
    if child == 0:
        try:
            new_engine.infer("x")
        except expert.ClosedError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_exit_with_a_running_request_does_not_hang(engine, tmp_path):
    program = (
        "import expert\n"
        f"engine = expert.Engine({engine.info()['path']!r}, threads=1)\n"
        "handle = engine.submit('Hello', experts=[], max_tokens=900, ignore_eos=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "EXPERT_HOME": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", program], timeout=60, env=environment).returncode == 0


# -- what the language expects ------------------------------------------------------------------------------------------


def test_handles_are_not_pickled_and_say_why(engine, sql_directory):
    sql = engine.load_expert(sql_directory)
    stream = engine.stream("x", experts=[], max_tokens=1)
    handle = engine.submit("x", experts=[], max_tokens=1)
    for thing in (engine, sql, stream, handle):
        for copy_of in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="memory of this process"):
                copy_of(thing)
    result = handle.result()
    assert pickle.loads(pickle.dumps(result)) == result  # plain data
    sql.unload()


def test_an_engine_collected_while_its_stream_is_read(home, engine):
    base = engine.info()["path"]
    chunks = iter(expert.Engine(base, threads=1, home=home).stream("Hello", **{**LONG, "max_tokens": 20}))
    gc.collect()
    assert list(chunks)[-1].result.finish_reason == "length"
    handle = expert.Engine(base, threads=1, home=home).submit("Hello", **{**LONG, "max_tokens": 5})
    gc.collect()
    assert len(handle.result().tokens) == 5


def test_found_experts_and_their_end(new_engine, sql_directory):
    with pytest.raises(expert.InvalidRequestError):
        new_engine.find_expert("sql")
    sql = new_engine.load_expert(sql_directory)
    assert new_engine.find_expert("sql").version == new_engine.find_expert("expert-sql").version == sql.version
    assert not sql.unloaded
    sql.unload()
    assert sql.unloaded and new_engine.context_size > 0


def test_closed_is_seen(new_engine):
    assert not new_engine.closed
    new_engine.close()
    assert new_engine.closed


def test_progress_is_told_and_what_it_raises_comes_out(home, engine):
    base = engine.info()["path"]
    heard = []
    expert.Engine(base, threads=1, home=home, progress=heard.append).close()
    assert heard and all(0 <= fraction <= 1 for fraction in heard)

    def broken(_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        expert.Engine(base, threads=1, home=home, progress=broken)
    with pytest.raises(TypeError):
        expert.Engine(base, progress=5)


def test_packages_and_models(tmp_path, sql_directory, engine):
    with pytest.raises(expert.SignatureError):
        expert.packages.install(sql_directory, home=tmp_path)
    assert expert.packages.install(sql_directory, skip_verify=True, home=tmp_path)["verified"] is False
    assert [entry["name"] for entry in expert.packages.list(home=tmp_path)] == ["expert-sql"]
    assert len(expert.packages.list(bundled=True, home=tmp_path)) > 1
    assert expert.packages.info("sql", home=tmp_path)["name"] == "expert-sql"
    expert.packages.uninstall("sql", home=tmp_path)
    assert expert.packages.list(home=tmp_path) == []
    base = engine.info()["path"]
    assert expert.models.add(base, name="mine", home=tmp_path)["default"]
    expert.models.add(base, name="other", home=tmp_path)
    expert.models.set_default("other", home=tmp_path)
    assert [model["name"] for model in expert.models.list(home=tmp_path) if model["default"]] == ["other"]
    expert.models.remove("mine", home=tmp_path)
    assert len(expert.models.list(home=tmp_path)) == 1


def test_what_is_not_built_yet_says_so_by_name(tmp_path):
    for call in (
        lambda: expert.packages.verify("x", home=tmp_path),
        lambda: expert.packages.update("x", home=tmp_path),
        lambda: expert.packages.create("/x", "/y"),
        lambda: expert.packages.sign("/x", "/y"),
        lambda: expert.generate_key("/x"),
        lambda: expert.trust.add("ed25519:00", "me", home=tmp_path),
        lambda: expert.trust.remove("me", home=tmp_path),
        lambda: expert.trust.list(home=tmp_path),
    ):
        with pytest.raises(expert.UnsupportedError, match="not built yet"):
            call()


def test_the_log_and_bench_check_their_arguments():
    expert.set_log_callback(lambda level, message: None, "debug")
    expert.set_log_callback(None)
    for wrong in (lambda: expert.set_log_callback(5), lambda: expert.bench(nothing=1), lambda: expert.bench(repeat=0)):
        with pytest.raises((TypeError, expert.InvalidRequestError)):
            wrong()
    with pytest.raises(ValueError, match="level"):
        expert.set_log_callback(None, "loud")
    assert expert.library_info()["version"] == expert.__version__
    assert isinstance(expert.home(), str)


def test_import_is_light():
    """Neither numpy nor torch nor a network; the time itself is measured by tests/bench."""
    program = (
        "import sys, expert\n"
        "print([name for name in ('numpy', 'torch', 'tqdm') if name in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_many_at_once_in_asyncio(engine):
    async def work():
        return await asyncio.gather(*(engine.ainfer(f"n {i % 3}", experts=[], max_tokens=2, temperature=0) for i in range(40)))

    results = asyncio.run(work())
    assert all(results[i].tokens == results[i % 3].tokens for i in range(40))


def test_a_stub_for_every_name():
    """_core.pyi says what the compiled module has, and nothing else."""
    stub = ast.parse((Path(expert.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))
    declared = {node.name: node for node in stub.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    real = {name for name in dir(expert._core) if not name.startswith("_") and name != "version"}
    assert set(declared) == real
    for name, node in declared.items():
        if isinstance(node, ast.ClassDef):
            inside = {item.name if isinstance(item, ast.FunctionDef) else item.target.id for item in node.body}
            members = {member for member in dir(getattr(expert._core, name)) if not member.startswith("_")}
            assert inside - {"__init__"} == members, name


def test_a_result_is_read_only_and_can_be_compared_copied_and_pickled(engine):
    request = {"experts": [], "max_tokens": 4, "temperature": 0, "logprobs": 2, "trace": True}
    result = engine.infer("Hello", **request)
    again = pickle.loads(pickle.dumps(result))
    assert again == result == copy.deepcopy(result)
    assert again.timings == result.timings and again.logprobs == result.logprobs and len(result.logprobs) == len(result.tokens)
    assert again.plan == result.plan and again.trace == result.trace
    assert repr(result).startswith(f"Result(text={result.text!r}, output=")
    assert engine.infer("Hello", **request) != result  # other timings
    for change in (lambda: setattr(result, "text", "x"), lambda: delattr(result, "text"), lambda: setattr(result, "other", 1)):
        with pytest.raises(AttributeError, match="read-only"):
            change()
    *_, last = engine.stream("Hello", **request)
    assert last.result.tokens == result.tokens and last.result.plan["parameters"]["max_tokens"] == 4


def test_an_unknown_keyword_is_an_error_even_when_it_is_none(engine):
    with pytest.raises(TypeError, match="max_token"):
        engine.infer("Hello", max_token=None)
