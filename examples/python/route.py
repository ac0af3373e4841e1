"""What the router would do with a prompt, and why. Nothing is generated."""

import sys

import expert

with expert.Engine() as engine:
    plan = engine.route(sys.argv[1] if len(sys.argv) > 1 else "Find all users older than 25")
    for name, weight, score, reason in plan.experts:
        print(f"{name} x {weight:g}  score {score:.3f}  {reason}")
    print(plan.explanation)
