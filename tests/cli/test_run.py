"""run and route: answers, --json, errors and their exit codes, Ctrl-C, closed and full outputs."""

import json
import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

BUNDLED = Path(__file__).resolve().parents[2] / "models"
BUILD = Path(os.environ.get("EXPERT_BUILD_DIR", BUNDLED.parent / "build" / "release"))

QUESTION = ["Find all users older than 25", "--schema", "users(id,name,age)"]
LONG = ["run", "Count", "--experts", "", "--max-tokens", "900", "--ignore-eos", "--temperature", "0"]


def shown_error(run):
    assert run.stdout == "", "errors are no results"
    lines = run.stderr.splitlines()
    assert lines[0].startswith("error: "), run.stderr
    return run.stderr


# -- answers ----------------------------------------------------------------------------------------------------------


def test_run_answers_on_stdout_and_nothing_else(cli):
    run = cli("run", *QUESTION)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() and run.stdout.endswith("\n")
    assert run.stderr == ""


def test_json_has_the_promised_shape(cli):
    answer = cli.json("run", *QUESTION, "--temperature", "0")
    assert {"text", "output", "tokens", "experts_used", "finish_reason", "usage", "timings", "plan"} <= answer.keys()
    assert answer["experts_used"][0]["name"] == "expert-sql"
    assert answer["experts_used"][0].keys() == {"name", "version", "weight"}
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert {"queue_ms", "prefill_ms", "first_token_ms", "decode_ms", "tokens_per_second"} <= answer["timings"].keys()
    assert answer["finish_reason"] in ("stop", "length")


def test_stream_and_no_stream_print_the_same(cli):
    options = ["--temperature", "0", "--experts", "sql"]
    assert cli("run", *QUESTION, *options, "--stream").stdout == cli("run", *QUESTION, *options, "--no-stream").stdout


def test_the_prompt_comes_from_stdin_when_there_is_none(cli):
    options = ["--temperature", "0", "--experts", "sql", "--schema", "users(id,name,age)"]
    expected = cli("run", QUESTION[0], *options).stdout
    assert cli("run", *options, stdin=QUESTION[0] + "\n").stdout == expected
    assert cli("run", "-", *options, stdin=QUESTION[0]).stdout == expected


def test_schema_and_body_from_files(cli, tmp_path):
    schema = tmp_path / "schema.txt"
    schema.write_text("users(id,name,age)\n")
    options = ["--temperature", "0", "--experts", "sql"]
    expected = cli("run", QUESTION[0], "--schema", "users(id,name,age)", *options).stdout
    assert cli("run", QUESTION[0], "--schema", schema, *options).stdout == expected
    body = tmp_path / "body.txt"
    body.write_text("some text")
    with_body = cli.json("run", "Say it", "--body", body, "--experts", "", "--max-tokens", "2")
    without = cli.json("run", "Say it", "--experts", "", "--max-tokens", "2")
    assert with_body["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"]


def test_a_schema_from_a_fifo_is_read(cli, tmp_path):
    fifo = tmp_path / "schema"
    os.mkfifo(fifo)
    process = cli.start("run", QUESTION[0], "--schema", fifo, "--experts", "sql", stdout=subprocess.PIPE)
    with open(fifo, "w") as writer:
        writer.write("users(id,name,age)")
    assert process.communicate(timeout=60)[0].strip()
    assert process.returncode == 0


def test_what_is_no_text_file_is_refused(cli, tmp_path):
    fifo, folder = tmp_path / "fifo", tmp_path / "folder"
    os.mkfifo(fifo)
    folder.mkdir()
    for option in ("--body", "--schema"):
        for path, words in ((fifo, "FIFO that nobody writes to"), (folder, "is a directory"), (tmp_path / "nothing", "o such file")):
            run = cli("run", "hi", option, path, "--experts", "", timeout=30)
            assert run.returncode == 1 and words in run.stderr, run


def bad_models(tmp_path):
    """A copy of the bundled base in which one file is replaced by what is no file."""
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        for kind, make, words in (
            ("fifo", os.mkfifo, "FIFO"),
            ("folder", os.mkdir, "directory"),
            ("empty", lambda path: path.touch(), name),
            ("broken link", lambda path: path.symlink_to(tmp_path / "nothing"), "No such file"),
        ):
            model = tmp_path / f"{name} {kind}"
            shutil.copytree(BUNDLED / "base", model)
            (model / name).unlink()
            make(model / name)
            yield model, name, words


def test_a_model_with_a_broken_file_is_refused_by_name(cli, tmp_path):
    for model, name, words in bad_models(tmp_path):
        run = cli("run", "hi", "--model", model, "--experts", "", "--max-tokens", "1", timeout=30)
        assert run.returncode == 1 and name in run.stderr and words in run.stderr, (model, run)
        shutil.rmtree(model)


def test_a_seed_makes_sampling_repeatable(cli):
    options = ["run", "Tell a story", "--experts", "", "--temperature", "3", "--max-tokens", "12"]  # the base is sure of itself
    first = cli.json(*options, "--seed", "7")["tokens"]
    assert cli.json(*options, "--seed", "7")["tokens"] == first
    assert any(cli.json(*options, "--seed", str(seed))["tokens"] != first for seed in range(8, 12))


def test_stop_strings_end_the_text(cli):
    base = ["run", *QUESTION, "--experts", "sql", "--temperature", "0"]
    text = cli.json(*base)["text"]
    stop = text[3:5]
    stopped = cli.json(*base, "--stop", stop)
    assert stopped["text"] == text[: text.index(stop)]
    assert stopped["finish_reason"] == "stop"


def test_debug_goes_to_stderr(cli):
    run = cli("run", *QUESTION, "--debug")
    assert run.returncode == 0
    assert "plan:" in run.stderr and "timings:" in run.stderr
    assert "plan:" not in run.stdout


# -- experts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, expected",
    [
        ("sql", [("expert-sql", 1.0)]),
        ("sql,jsonfmt:0.5", [("expert-jsonfmt", 0.5), ("expert-sql", 1.0)]),
        ("sql:-0.25", [("expert-sql", -0.25)]),
        ("sql:1e-1", [("expert-sql", 0.1)]),
        ("sql:0", []),
        ("", []),
    ],
)
def test_experts_and_weights(cli, value, expected):
    answer = cli.json("run", "x", "--experts", value, "--max-tokens", "2")
    assert sorted((e["name"], e["weight"]) for e in answer["experts_used"]) == expected


def test_an_expert_by_path_with_weight_and_odd_names(cli, sql_directory, tmp_path):
    odd = tmp_path / "a,b:0.5"
    odd.symlink_to(sql_directory)
    for value, weight in [(sql_directory, 1.0), (f"{sql_directory}:0.5", 0.5), (odd, 1.0)]:
        answer = cli.json("run", "x", "--experts", value, "--max-tokens", "2")
        assert [(e["name"], e["weight"]) for e in answer["experts_used"]] == [("expert-sql", weight)]


@pytest.mark.parametrize("value", ["sql:", "sql:abc", "sql:nan", "sql:inf", "sql,,json", ":0.5", "sql,"])
def test_malformed_expert_lists_are_usage_errors(cli, value):
    run = cli("run", "x", "--experts", value)
    assert run.returncode == 2
    assert "--experts" in shown_error(run)


def test_an_unknown_expert_is_named(cli):
    run = cli("run", "x", "--experts", "no-such-expert")
    assert run.returncode == 2
    assert "no-such-expert" in shown_error(run)


def test_auto_and_experts_exclude_each_other(cli):
    assert cli("run", "x", "--auto", "--experts", "sql").returncode == 2


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "x", "--no-such-flag"],
        ["run", "x", "--model", ""],
        ["run", "x", "--seed", "-1"],
        ["run", "x", "--memory-limit", "-1"],
        ["run", "x", "--temperature", "warm"],
        ["run", "x", "--temperature", "nan"],
        ["run", "x", "--temperature", "-1"],
        ["run", "x", "--top-p", "0"],
        ["run", "x", "--max-tokens", "0"],
        ["run", "x", "--max-tokens", "99999999999999"],
        ["run", "x", "--weights", "f16"],
        ["run", "x", "--device", "tpu"],
        ["run", "x", "--stream", "--no-stream"],
        ["run", "x", "--stream", "--json"],
        ["run", ""],
        ["run", "one", "two"],
        ["nonsense"],
        [],
        ["model"],
        ["install"],
    ],
)
def test_usage_errors_exit_2(cli, arguments):
    run = cli(*arguments)
    assert run.returncode == 2, run.stderr
    assert "error: " in run.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "x", "--grammar", "g.gbnf"],
        ["run", "x", "--json-schema", "s.json"],
        ["install", "git+https://example.invalid/x"],
        ["install", "https://example.invalid/x"],
        ["install", "some-name"],
        ["model", "download", "x"],
        *([command, "x", "--flag"] for command in ("update", "verify", "package", "keygen", "sign", "trust", "dataset",
          "train", "validate", "compare", "marketplace", "registry", "config", "serve")),
    ],
)  # fmt: skip
def test_what_is_not_built_yet_says_so(cli, arguments):
    run = cli(*arguments)
    assert run.returncode == 2, run.stderr
    assert "not supported yet" in shown_error(run)


NO_PLUGIN = {"EXPERT_CUDA_PLUGIN": "/nonexistent/libexpert_cuda.so"}


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_cuda_device_without_a_plugin_is_refused_by_name(cli, device):
    for run in (cli("run", "x", "--device", device, **NO_PLUGIN), cli("run", "x", EXPERT_DEVICE=device, **NO_PLUGIN)):
        assert run.returncode == 2
        assert "/nonexistent/libexpert_cuda.so" in shown_error(run)
        assert "cpu" in run.stderr


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:-1", "cuda:01"])
def test_a_device_that_is_no_number_is_a_usage_error(cli, device):
    run = cli("run", "x", "--device", device, **NO_PLUGIN)
    assert run.returncode == 2 and f"'{device}'" in shown_error(run)


def test_a_file_that_is_no_plugin_is_named_and_auto_goes_on(cli, tmp_path):
    plugin = tmp_path / "libexpert_cuda.so"
    plugin.write_text("not a library")
    run = cli("run", "x", "--device", "cuda", EXPERT_CUDA_PLUGIN=str(plugin))
    assert run.returncode == 2 and str(plugin) in shown_error(run)
    assert cli("run", "x", "--max-tokens", "1", EXPERT_CUDA_PLUGIN=str(plugin)).returncode == 0


def test_the_command_line_on_an_emulated_cuda_device(cli):
    plugin = BUILD / "tests" / "cuda" / "libcuda_emulated.so"
    if not plugin.exists():
        pytest.skip("built without the tests")
    arguments = ["run", "Find all users older than 25", "--schema", "users(id,name,age)", "--experts", "sql"]
    arguments += ["--temperature", "0", "--max-tokens", "6"]
    cuda = cli(*arguments, "--device", "cuda", EXPERT_CUDA_PLUGIN=str(plugin))
    assert cuda.returncode == 0, cuda.stderr
    assert cuda.stdout == cli(*arguments, "--device", "cpu").stdout
    assert "cuda:3" in shown_error(cli("run", "x", "--device", "cuda:3", EXPERT_CUDA_PLUGIN=str(plugin)))


def test_a_missing_model_is_a_general_error(cli, tmp_path):
    for model in ["/nonexistent/model", tmp_path]:
        run = cli("run", "x", "--model", model)
        assert run.returncode == 1
        assert str(model) in shown_error(run)
    assert "hint: " in cli("run", "x", "--model", "/nonexistent/model").stderr


def test_a_fifo_or_a_directory_in_place_of_a_file(cli, tmp_path):
    fifo = tmp_path / "x.expert"
    os.mkfifo(fifo)
    run = cli("run", "x", "--experts", fifo, timeout=30)
    assert run.returncode == 1 and str(fifo) in run.stderr
    run = cli("run", "x", "--body", tmp_path)
    assert run.returncode == 1 and "directory" in run.stderr
    run = cli("run", "x", "--body", tmp_path / "nothing")
    assert run.returncode == 1 and "nothing" in run.stderr


def test_a_prompt_longer_than_the_context(cli):
    run = cli("run", "word " * 20000)
    assert run.returncode == 2
    assert "context" in shown_error(run)


def test_an_expert_for_another_base_exits_4(cli, sql_directory, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in sql_directory.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["base_models"][0]["name"] = "some-other-base-70b"
    manifest["base_models"][0]["sha256"] = "0" * 64  # the true one would prove more than a name
    (other / "manifest.json").write_text(json.dumps(manifest))
    run = cli("run", "x", "--experts", other)
    assert run.returncode == 4, run.stderr
    assert "some-other-base-70b" in shown_error(run)


def test_a_malformed_manifest_exits_12(cli, sql_directory, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in sql_directory.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "manifest.json").write_text('{"name": "Not A Name"')
    run = cli("run", "x", "--experts", broken)
    assert run.returncode == 12, run.stderr


def test_with_json_an_error_is_a_document(cli):
    run = cli("run", "x", "--experts", "no-such-expert", "--json")
    assert run.returncode == 2
    error = json.loads(run.stdout)["error"]
    assert error["code"] == "invalid_request" and error["exit_code"] == 2
    assert "no-such-expert" in error["message"] and error["hint"] is not None
    bogus = cli("bogus", "--json")
    assert bogus.returncode == 2 and '"bogus" is no command' in bogus.stderr and "run, chat, route" in bogus.stderr
    both = cli("run", "-", "--body", "-", stdin="text")
    assert both.returncode == 2 and "cannot both be standard input" in both.stderr
    usage = cli("run", "x", "--no-such-flag", "--json")
    assert json.loads(usage.stdout)["error"]["code"] == "usage"


# -- route ------------------------------------------------------------------------------------------------------------


def test_route_shows_the_plan_without_answering(cli):
    plan = cli.json("route", *QUESTION)
    assert plan.keys() >= {"experts", "parameters", "confidence", "explanation"}
    assert [e["name"] for e in plan["experts"]] == ["expert-sql"]
    assert plan["experts"][0].keys() >= {"name", "weight", "score", "reason"}
    text = cli("route", *QUESTION)
    assert text.returncode == 0 and "expert-sql" in text.stdout
    assert cli.json("route", "What is love?")["experts"] == []


# -- Ctrl-C, closed and full outputs ----------------------------------------------------------------------------------


def test_ctrl_c_prints_the_partial_text_and_exits_130(cli):
    process = cli.start(*LONG, "--stream", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert first and rest.endswith("\n")
    assert error == ""


def test_ctrl_c_without_streaming_prints_the_partial_text_too(cli):
    process = cli.start(*LONG, "--no-stream", "--json", "--debug", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    if process.returncode == 130 and output:
        assert json.loads(output)["finish_reason"] == "cancelled"
    else:  # before generating began, or already done
        assert process.returncode in (0, 130, -signal.SIGINT)


def test_ctrl_c_on_a_terminal(cli):
    leader, follower = pty.openpty()
    process = cli.start(*LONG, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
                        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0))  # fmt: skip
    os.close(follower)
    seen = os.read(leader, 1)
    os.write(leader, b"\x03")
    while True:
        try:
            data = os.read(leader, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
    assert process.wait(timeout=30) == 130
    assert seen.endswith(b"\n")


def test_a_closed_pipe_is_an_error_not_a_signal(cli):
    reader, writer = os.pipe()
    process = cli.start(*LONG, "--stream", stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "standard output" in error


def test_a_closed_stdout_is_an_error(cli):
    process = cli.start("run", "x", "--experts", "", "--max-tokens", "2", stderr=subprocess.PIPE, text=True,
                        preexec_fn=lambda: os.close(1))  # fmt: skip
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "standard output" in error


@pytest.mark.parametrize("options", [["--stream"], ["--no-stream"], ["--json"]])
def test_a_full_disk_is_an_error(cli, options):
    with open("/dev/full", "w") as full:
        process = cli.start("run", "x", "--experts", "", "--max-tokens", "4", *options, stdout=full,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "No space left" in error


def test_help_and_version_are_results(cli):
    run = cli("--help")
    assert run.returncode == 0 and "run" in run.stdout and run.stderr == ""
    run = cli("run", "--help")
    assert run.returncode == 0 and "--temperature" in run.stdout
    run = cli("--version")
    assert run.returncode == 0 and run.stdout.startswith("expert-cli ")
