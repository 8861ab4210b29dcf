"""``python -m bench.many.worker``: one peer in a process of its own; a line of JSON asks, a line answers."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import Any

import psutil

from bench.many.peers import PEERS, Pass
from bench.many.task import SETS
from gpubp.benchmark.process import end_with_parent

ready: dict[str, Pass] = {}


def answer(do: str, fields: dict[str, Any]) -> dict[str, Any]:
    if do == "prepare":
        name = fields["set"]
        ready[name] = PEERS[fields["peer"]][2](SETS[name], fields["data"], fields["threads"])
        return {}
    started = time.perf_counter()
    ready[fields["set"]](fields["epochs"])
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "bytes": psutil.Process().memory_info().rss}


def main() -> None:
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        fields = json.loads(line)
        try:
            said = answer(fields.pop("do"), fields)
        except Exception as error:
            traceback.print_exc()
            said = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
