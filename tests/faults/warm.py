"""A warm process that forks one child per line of JSON on standard input: `{"call": "module:function", "argument": ...}`.

It imports everything and runs nothing, so a child is a fresh process that did not pay for `import torch`. It answers each line with the
child's pid, and `"wait"` with the exit code of the last child.
"""

import json
import os
import sys
import traceback
from importlib import import_module

import torch

for module in (
    "training.start",
    "envs.native.cartpole",
    *(f"agents.{name}" for name in ("a2c", "ppo", "random", "reinforce")),
):
    import_module(f"whorl.{module}")
torch.set_num_threads(1)
child = 0
for line in sys.stdin:
    request = json.loads(line)
    call = request.pop("call")
    if call == "wait":
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code, flush=True)
        continue
    child = os.fork()
    if child == 0:
        status = 1
        try:
            module, _, name = call.partition(":")
            getattr(import_module(module), name)(**request)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    print(child, flush=True)
