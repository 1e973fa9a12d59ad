"""Plays an environment for some seconds: ``python -m agentgym.doctor_play NAME SECONDS``.

A process of its own, so that what the environment takes can be told from all else.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from agentgym.envs.base import TextEnv
from agentgym.envs.registry import env_class, make_env
from agentgym.errors import AgentGymError, DataError
from agentgym.types import EnvSpec

_LEAST_STEPS = 10


def look(name: str, seconds: float) -> dict[str, Any]:
    """Build an environment, play it, and return what was found, as JSON holds it."""
    begun = time.perf_counter()
    kind = env_class(name)
    with closing(make_env(EnvSpec(name, {"suite": kind.default_suite}))) as env:
        env.reset(seed=0, options={"task": env.suite.tasks[0]})
        built = time.perf_counter() - begun
        rate = _steps_per_second(env, seconds)
        return {
            "suite": env.suite.name,
            "tasks": len(env.suite.tasks),
            "digest": env.suite.digest,
            "build_s": built,
            "steps_per_s": rate,
            "mb": _megabytes(),
            "java": _java(),
            "missing": _missing(kind),
        }


def _steps_per_second(env: TextEnv, seconds: float) -> float:
    """Return how many steps a second it makes, resets and the choice of actions left out."""
    draws = random.Random("doctor")
    begun, steps, stepping, over = time.perf_counter(), 0, 0.0, True
    info: dict[str, Any] = {}
    while steps < _LEAST_STEPS or time.perf_counter() - begun < seconds:
        if over:
            _, told = env.reset(seed=steps, options={"task": draws.choice(env.suite.tasks)})
            info = dict(told)
        expert = env.expert() if env.has_expert else None
        action = expert or draws.choice(info.get("admissible_actions") or ("look",))
        before = time.perf_counter()
        _, _, terminated, truncated, told = env.step(action)
        stepping += time.perf_counter() - before
        info, over, steps = dict(told), terminated or truncated, steps + 1
    return steps / stepping


def _megabytes() -> float:
    """Return the largest memory so far of this process and of those that it started."""
    if not Path("/proc/self/status").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes, on a Mac
    # Not rusage: it would tell of the process that started this one, too.
    processes = [_status(path) for path in Path("/proc").glob("[0-9]*/status")]
    own = str(os.getpid())
    peaks = [p["VmHWM"] for p in processes if own in (p.get("Pid"), p.get("PPid")) and "VmHWM" in p]
    return sum(int(peak.split()[0]) for peak in peaks) / 1e3


def _status(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # it ended meanwhile
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name: value.strip() for name, _, value in pairs}


def _java() -> str | None:
    """Return the first line that Java says of itself, where an environment is played in it."""
    module = sys.modules.get("agentgym.envs.scienceworld_jvm")
    if module is None:
        return None
    java = import_module(module.__name__).find_java()
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    return (said.stderr or said.stdout).splitlines()[0] if said.returncode == 0 else None


def _missing(kind: type[TextEnv]) -> list[tuple[str, str]]:
    """Return the suites whose data is not here, each with the reason."""
    found = []
    for suite in kind.suite_names():
        try:
            make_env(EnvSpec(kind.name, {"suite": suite})).close()
        except DataError as error:
            found.append((suite, " ".join(str(error).split())))
        except AgentGymError:
            continue  # it wants an option, and lacks nothing
    return found


def main() -> None:
    """Look at the environment that the command line names; write what was found."""
    try:
        told = look(sys.argv[1], float(sys.argv[2]))
    except AgentGymError as error:
        told = {"error": " ".join(str(error).split())}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
