"""chat: the conversation, its commands, Ctrl-C in an answer."""

import os
import pty
import signal
import subprocess
import time

OPTIONS = ["--experts", "", "--temperature", "0", "--max-tokens", "6"]


def test_chat_with_a_prompt_is_run(cli):
    expected = cli("run", "Hello there", *OPTIONS).stdout
    assert cli("chat", "--prompt", "Hello there", *OPTIONS).stdout == expected


def test_every_turn_sees_the_turns_before_it(cli):
    def prompt_tokens(run):
        return [int(line.split()[1]) for line in run.stderr.splitlines() if line.startswith("timings:")]

    run = cli("chat", *OPTIONS, "--debug", stdin="Hello\nHello\n/reset\nHello\n")
    assert run.returncode == 0, run.stderr
    first, second, third = prompt_tokens(run)
    assert second > first and third == first
    assert len(run.stdout.splitlines()) >= 3


def test_schema_and_system_are_part_of_the_conversation(cli):
    def tokens(*options):
        run = cli("chat", *OPTIONS, "--debug", *options, stdin="Hello\n")
        return int(run.stderr.split("timings: ")[1].split()[0])

    assert tokens("--schema", "users(id,name,age)") > tokens()
    assert tokens("--system", "Be brief.") > tokens()


def test_exit_quit_and_end_of_file_end_it(cli):
    for stdin in ["/exit\nHello\n", "/quit\n", "", "\n\n"]:
        run = cli("chat", *OPTIONS, stdin=stdin)
        assert run.returncode == 0 and run.stdout == "", stdin


def test_a_turn_that_fails_is_taken_back(cli):
    run = cli("chat", *OPTIONS, stdin="word " * 20000 + "\nHello\n")
    assert "error: " in run.stderr
    assert run.stdout.strip()
    assert run.returncode == 0


def test_json_and_raw_need_a_prompt(cli):
    assert cli("chat", "--json", stdin="x\n").returncode == 2
    assert cli("chat", "--raw", stdin="x\n").returncode == 2


def test_ctrl_c_stops_only_the_answer(cli):
    leader, follower = pty.openpty()
    process = cli.start("chat", "--experts", "", "--temperature", "0", "--max-tokens", "900", "--ignore-eos", "--stream",
                        stdin=follower, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    os.close(follower)
    os.write(leader, b"Hello\n")
    assert process.stdout.read(1), "an answer has begun"
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "the conversation goes on"
    os.write(leader, b"/exit\n")
    process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0


def test_pasted_lines_are_one_message(cli):
    leader, follower = pty.openpty()
    process = cli.start("chat", *OPTIONS, "--debug", stdin=follower, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        text=True)  # fmt: skip
    os.close(follower)
    os.write(leader, b"Hello\nthere\nyou\n")
    time.sleep(1.5)
    os.write(leader, b"/exit\n")
    _, error = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0
    assert error.count("timings:") == 1
