"""install, list, info, uninstall and model: what they print, what they leave behind."""

import json
import os
import pty
import subprocess

FIELDS = {"name", "version", "base_model", "kinds", "size_bytes", "path", "verified", "publisher"}


def test_install_list_info_uninstall(cli, sql_directory):
    assert cli.json("list") == []
    installed = cli.json("install", sql_directory, "--skip-verify")
    assert installed.keys() >= FIELDS and installed["verified"] is False
    assert cli.json("list") == [installed]
    assert installed["path"] == str(cli.home / "experts" / "expert-sql" / installed["version"])
    info = cli.json("info", "sql")
    assert info.keys() >= FIELDS | {"capabilities", "routing"}
    assert "expert-sql" in cli("list").stdout
    assert cli("uninstall", "sql").returncode == 0
    assert cli.json("list") == []
    assert not list((cli.home / "experts").glob("*/*"))
    run = cli("uninstall", "sql")
    assert run.returncode == 2 and "sql" in run.stderr


def test_an_unsigned_package_without_a_terminal_exits_5(cli, sql_directory):
    for options in ([], ["--yes"]):
        run = cli("install", sql_directory, *options)
        assert run.returncode == 5, run.stderr
        assert cli.json("list") == []


def test_on_a_terminal_an_unsigned_package_is_a_question(cli, sql_directory):
    for answer, code in [(b"n\n", 5), (b"y\n", 0)]:
        leader, follower = pty.openpty()
        process = cli.start("install", sql_directory, stdin=follower, stderr=follower, stdout=subprocess.PIPE)
        os.close(follower)
        os.write(leader, answer)
        process.communicate(timeout=60)
        os.close(leader)
        assert process.returncode == code
    assert len(cli.json("list")) == 1


def test_an_installed_expert_is_found_by_name(cli, sql_directory):
    cli("install", sql_directory, "--skip-verify")
    answer = cli.json("run", "x", "--experts", "expert-sql", "--max-tokens", "2")
    assert answer["experts_used"][0]["name"] == "expert-sql"


def test_a_malformed_package_exits_12_and_leaves_nothing(cli, tmp_path, sql_directory):
    archive = tmp_path / "broken.expert"
    archive.write_bytes(b"this is no archive")
    directory = tmp_path / "broken"
    directory.mkdir()
    (directory / "manifest.json").write_text("{")
    truncated = tmp_path / "truncated"
    truncated.mkdir()
    for file in sql_directory.iterdir():
        data = file.read_bytes()
        (truncated / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    for source in [archive, directory, truncated]:
        run = cli("install", source, "--skip-verify")
        assert run.returncode == 12, (source, run.stderr)
        assert "error: " in run.stderr and run.stdout == ""
    assert cli.json("list") == []


def test_a_source_that_is_not_there_is_a_general_error(cli):
    run = cli("install", "./nothing.expert", "--skip-verify")
    assert run.returncode == 1 and "nothing.expert" in run.stderr


def test_pickles_are_refused_with_what_to_do(cli, tmp_path, sql_directory):
    directory = tmp_path / "pickled"
    directory.mkdir()
    (directory / "adapter_config.json").write_bytes((sql_directory / "adapter_config.json").read_bytes())
    (directory / "adapter_model.bin").write_bytes(b"\x80\x04.")
    run = cli("install", directory, "--skip-verify")
    assert run.returncode != 0
    assert "safetensors" in run.stderr


def test_bundled_experts_are_listed_when_asked(cli):
    names = {expert["name"] for expert in cli.json("list", "--bundled")}
    assert "expert-sql" in names
    assert cli.json("info", "sql")["name"] == "expert-sql"


def test_models(cli, sql_directory):
    base = sql_directory.parents[1] / "base"
    assert cli.json("model", "list") == []
    added = cli.json("model", "add", base, "--name", "tiny")
    assert added["name"] == "tiny" and added["default"] is True
    assert cli.json("model", "list") == [added]
    assert cli.json("run", "x", "--model", "tiny", "--experts", "", "--max-tokens", "2")["finish_reason"]
    assert cli("model", "remove", "tiny").returncode == 0
    assert cli("model", "remove", "tiny").returncode == 2
    run = cli("model", "add", "/nonexistent")
    assert run.returncode == 1 and "/nonexistent" in run.stderr


def test_a_home_that_cannot_be_written(cli, sql_directory, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    run = cli("install", sql_directory, "--skip-verify", EXPERT_HOME=str(file))
    assert run.returncode not in (0, 2, 5)
    assert str(file) in run.stderr


def test_info_with_json_error(cli):
    run = cli("info", "no-such-expert", "--json")
    assert run.returncode == 2
    assert json.loads(run.stdout)["error"]["code"] == "invalid_request"
