"""Three lines to a first answer; the router chooses the experts."""

import expert

engine = expert.Engine()
print(engine.infer("Find all users older than 25", schema="users(id,name,age)", max_tokens=64).output)
