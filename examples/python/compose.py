"""Two experts bend one base in one request: neither alone can answer this.

python compose.py ["PROMPT" ["SCHEMA" [EXPERT …]]]
"""

import sys

import expert

prompt = sys.argv[1] if len(sys.argv) > 1 else "Find all users older than 25"
schema = sys.argv[2] if len(sys.argv) > 2 else "users(id,name,age)"
names = sys.argv[3:] or ["sql", "jsonfmt"]

with expert.Engine() as engine:
    for experts in [[], *([name] for name in names), names]:
        result = engine.infer(prompt, schema=schema, experts=experts, temperature=0, max_tokens=64)
        print(f"{' + '.join(experts) or 'base':16} {result.output!r}")
