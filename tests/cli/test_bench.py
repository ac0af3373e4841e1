"""bench: the shape of its report and numbers that hang together (no number is judged here); signals leave nothing behind."""

import os
import signal
import subprocess
import time

import pytest


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_leaves_no_scratch_folder(cli, tmp_path, name):
    number = getattr(signal, name)
    cli.environment["TMPDIR"] = str(tmp_path)
    process = cli.start("bench", "--experts", "3", "--prompt-tokens", "64", "--repeat", "1000", stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL)  # fmt: skip
    until = time.monotonic() + 60
    while not list(tmp_path.glob("expert-bench-*/*")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    os.kill(process.pid, number)
    assert process.wait(timeout=60) == (130 if number == signal.SIGINT else -number)
    assert not list(tmp_path.glob("expert-bench-*"))


def test_the_report(cli):
    report = cli.json("bench", "--experts", "0,2", "--prompt-tokens", "16,64", "--decode-tokens", "8", "--repeat", "1",
                      "--threads", "1", timeout=300)  # fmt: skip
    assert report.keys() >= {"model", "weights", "isa", "threads", "bandwidth_gb_s", "rows", "swap_ms", "load_expert", "load_ms",
                             "peak_memory_bytes"}  # fmt: skip
    assert [row["experts"] for row in report["rows"]] == [0, 2]
    for row in report["rows"]:
        assert row["prefill_tokens_per_second"].keys() == {"16", "64"}
        assert all(rate > 0 for rate in row["prefill_tokens_per_second"].values())
        share = row["decode_tokens_per_second"] * row["bytes_per_token"] / (row["bandwidth_gb_s"] * 1e9)
        assert abs(share - row["share_of_bandwidth"]) < 0.01 * share + 0.001
        assert row["bandwidth_gb_s"] <= report["bandwidth_gb_s"]
    base, two = report["rows"]
    assert two["bytes_per_token"] > base["bytes_per_token"] > 5_000_000
    for kind in ("seen", "new"):
        assert 0 <= report["swap_ms"][kind]["p50"] <= report["swap_ms"][kind]["p99"]
    for kind in ("hashed_ms", "recognised_ms"):
        assert 0 < report["load_expert"][kind]["p50"] <= report["load_expert"][kind]["p99"]
    assert base["decode_time_over_base"] == 1 and two["decode_time_over_base"] > 0
    assert report["threads"] == 1 and report["peak_memory_bytes"] > 1_000_000


def test_named_experts_and_bad_options(cli):
    report = cli.json("bench", "--experts", "sql,jsonfmt", "--prompt-tokens", "16", "--decode-tokens", "4", "--repeat",
                      "1", timeout=300)  # fmt: skip
    assert [row["experts"] for row in report["rows"]] == [0, 2]
    assert report["load_expert"] is None
    assert cli("bench", "--repeat", "0").returncode == 2
    assert cli("bench", "--experts", "no-such-expert").returncode == 1
    assert cli("bench", "--weights", "q4_0").returncode == 2
