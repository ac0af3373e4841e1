"""A chat: every line of standard input is a turn, the answer streams to standard output."""

import sys

import expert

messages = []
with expert.Engine() as engine:
    for line in sys.stdin:
        messages.append({"role": "user", "content": line.strip()})
        stream = engine.stream(messages=messages, experts=[], max_tokens=48, special_in_text=False)
        for chunk in stream:
            print(chunk.text, end="", flush=True)
        print()
        messages.append({"role": "assistant", "content": stream.result.text})
