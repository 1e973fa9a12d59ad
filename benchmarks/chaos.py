"""Chaos: short training runs, each hit once at a random moment, must end as the undisturbed run.

    python benchmarks/chaos.py                # 50 runs; exit code 1 if one ended otherwise
    python benchmarks/chaos.py --runs 10      # the first ten of them
    python benchmarks/chaos.py --write        # and write chaos.md beside this file

A run is a process of its own, ``agentgym train`` with a tiny model. It is hit by one of: SIGKILL of
the trainer, of an environment's process, of the server that samples for it (the fake one of the
tests), or of ScienceWorld's Java; SIGTERM; a full disk; a damaged file in its last checkpoint; a
file of metrics that is cut off; a wall clock that jumps. If it ended by that, it is resumed by the
same command with ``--resume``; where it had not got as far as its folder, it is started anew.

Then its metrics (apart from times and from the number of faults that were healed), the files of
its last checkpoint, its trajectories and its evaluations must be those of the undisturbed run, bit
for bit. Of a run that a server sampled for, the tasks and members of all steps and evaluations
must be; whether all the rest was the same too is told. No episode may be there twice, be lost, or
have failed without a reason; no process may outlive its run; what ended by itself says why in one
line.

A line of JSON is written after each run (``--record``, by default below ``runs``). A job that was
interrupted goes on after its last run when the same command is given again; delete the record to
begin anew. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from subprocess import Popen, TimeoutExpired

from chaos_hits import Clock, Damage, Fault, FullDisk, KillBelow, Moment, Run, Signal, Truncate
from chaos_report import report
from chaos_runs import Scenario, differences, faults, prepare, seconds_a_step
from processes import command, marked

from agentgym.trainers.manifest import flaw

_MARK = "AGENTGYM_CHAOS"
_ENDS_S = 600.0  # a run that takes longer hangs
_OUTLIVE_S = 20.0  # a server has ten seconds to end by itself
_TRIES = 6  # draws of a moment before which the run had ended

FULL_DISK = FullDisk()
FAULTS: dict[str, Fault] = {
    "SIGKILL of the trainer": Signal(),
    "SIGTERM": Signal(number=signal.SIGTERM),
    "SIGKILL of an environment's process": KillBelow(mark="multiprocessing.spawn"),
    "SIGKILL of the server": KillBelow(mark="fake_vllm.py"),
    "SIGKILL of Java": KillBelow(mark="py4j.GatewayServer"),
    "full disk": FULL_DISK,
    "damaged checkpoint": Damage(),
    "metrics cut off": Truncate(),
    "clock that jumps": Clock(),
}
PLAN = (
    ("SIGKILL of the trainer", "corridor", 4),
    ("SIGKILL of the trainer", "corridor, served", 1),
    ("SIGKILL of the trainer", "ScienceWorld", 1),
    ("SIGTERM", "corridor", 4),
    ("SIGTERM", "corridor, served", 1),
    ("SIGTERM", "ScienceWorld", 1),
    ("SIGKILL of an environment's process", "corridor, 2 workers", 6),
    ("SIGKILL of the server", "corridor, served", 5),
    ("SIGKILL of Java", "ScienceWorld", 5),
    ("full disk", "corridor", 5),
    ("full disk", "corridor, served", 1),
    ("damaged checkpoint", "corridor", 6),
    ("metrics cut off", "corridor", 5),
    ("clock that jumps", "corridor", 3),
    ("clock that jumps", "corridor, served", 2),
)


@dataclass
class Result:
    """What became of a run; a line of the record."""

    number: int
    fault: str
    scenario: str
    moment: str = ""
    told: str = ""  # of the fault
    ended: int = 0  # the exit code of the run that was hit
    resumed: bool = False
    said: str = ""  # its last words
    healed: int = 0  # faults, by its own count
    bitwise: bool = False
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A scenario's undisturbed run."""

    folder: Path
    start_s: float  # until its first step
    step_s: float


def cases(seed: int) -> list[tuple[str, str]]:
    """Return fault and scenario of every run, mixed."""
    listed = [(fault, scenario) for fault, scenario, count in PLAN for _ in range(count)]
    random.Random(f"{seed}:order").shuffle(listed)
    return listed


def undisturbed(scenario: Scenario, folder: Path) -> Undisturbed:
    """Run a scenario to its end."""
    begun, first = time.monotonic(), 0.0
    process = scenario.start(folder, folder.with_suffix(".log"))
    while process.poll() is None:
        if not first and (folder / "eval" / "step_000000" / "results.json").exists():
            first = time.monotonic() - begun
        time.sleep(0.01)
    if process.returncode:
        sys.exit(f"the undisturbed run of {scenario.name} failed; {_last(folder, '.log')}")
    return Undisturbed(folder, first, seconds_a_step(folder))


def play(
    number: int, seed: int, scenario: Scenario, whole: Undisturbed, work: Path, name: str
) -> Result:
    """Run a scenario, hit it, let it come to its end, and compare."""
    result = Result(number, name, scenario.name)
    begun = time.monotonic()
    for attempt in range(_TRIES):
        rng = random.Random(f"{seed}:{number}:{attempt}")
        folder = work / f"case-{number}-{attempt}" / "run"
        folder.parent.mkdir(parents=True)
        fault = FAULTS[name]
        os.environ[_MARK] = mark = f"{number}-{attempt}-{os.getpid()}"
        try:
            hit = _hit(result, scenario, whole, folder, fault, rng)
            if hit:
                _resume(result, scenario, folder, fault, rng)
                _judge(result, scenario, whole, folder)
                result.failures += _outlived(f"{_MARK}={mark}")
        finally:
            fault.tidy(folder)
        if hit:
            if not result.failures:
                shutil.rmtree(folder.parent, ignore_errors=True)
            break
    else:
        result.failures.append(f"it ended {_TRIES} times before it was hit")
    result.seconds = round(time.monotonic() - begun, 1)
    return result


def _hit(
    result: Result,
    scenario: Scenario,
    whole: Undisturbed,
    folder: Path,
    fault: Fault,
    rng: random.Random,
) -> bool:
    """Start a run and hit it; return whether it was still going on then. It ends, or is killed.

    A run that ended by itself although it was killed had ended between the look and the signal.
    """
    moment = Moment.draw(rng, _steps(fault, scenario), whole.start_s, whole.step_s)
    more = fault.before(folder, rng)
    log = folder.parent.with_suffix(".log")
    run = Run(scenario.start(folder, log, more), folder, rng)
    hit = moment.wait(folder, run.running)
    if hit:
        fault.strike(run)
    result.moment, result.told = moment.told(), "; ".join(run.told)
    result.ended = _wait(run.process, result)
    killed = isinstance(fault, Signal) and fault.number is signal.SIGKILL
    too_late = "nothing to kill" in result.told or (killed and result.ended == 0)
    return hit and not too_late


def _steps(fault: Fault, scenario: Scenario) -> range:
    """Return after how many steps a fault may come; what it damages has to be there."""
    if isinstance(fault, Signal) and fault.number is signal.SIGTERM:  # the last step is the end
        return range(-1, scenario.steps - 1)
    if isinstance(fault, Damage):  # and a checkpoint before it: what came after step 4 is written
        return range(scenario.steps // 2 + 1, scenario.steps)
    return range(1 if isinstance(fault, Truncate) else -1, scenario.steps)


def _wait(process: Popen[bytes], result: Result) -> int:
    try:
        return process.wait(_ENDS_S)
    except TimeoutExpired:
        process.kill()
        result.failures.append(f"it hung for {_ENDS_S:.0f} s")
        return process.wait()


def _resume(
    result: Result, scenario: Scenario, folder: Path, fault: Fault, rng: random.Random
) -> None:
    """Look at how a run ended, and bring it to its end."""
    log = folder.parent.with_suffix(".log")
    result.said = _last(folder.parent, ".log")
    if "Traceback" in log.read_text(errors="replace") and result.ended != -signal.SIGKILL:
        result.failures.append("it ended by an exception that nobody caught")
    if result.ended not in _codes(fault):
        result.failures.append(f"exit code {result.ended}; expected one of {_codes(fault)}")
    result.failures += _whole(folder)
    told = fault.after(folder, rng)
    result.told = "; ".join(filter(None, (result.told, told)))
    if result.ended == 0:
        return
    result.resumed = True
    code = _wait(scenario.start(folder, log), result)
    last = _last(folder.parent, ".log")
    if code and f"is done: {scenario.steps} of {scenario.steps} steps" not in last:
        result.failures.append(f"it could not be resumed: exit code {code}, {last}")


def _codes(fault: Fault) -> tuple[int, ...]:
    """Return the exit codes that a run may have that was hit; 0 where it was too late for it."""
    if fault.lives:
        return (0,)
    if isinstance(fault, Signal):
        return (-fault.number,) if fault.number is signal.SIGKILL else (0, -fault.number, 130)
    return (0, 1)


def _whole(folder: Path) -> list[str]:
    """Return what is wrong with the last checkpoint of a run, which nothing may have damaged."""
    pointer = folder / "checkpoints" / "latest"
    if not pointer.exists():
        return []
    wrong = flaw(pointer.parent / pointer.read_text().strip())
    return [] if wrong is None else [f"its last checkpoint is not whole: {wrong}"]


def _judge(result: Result, scenario: Scenario, whole: Undisturbed, folder: Path) -> None:
    if not (folder / "metrics.jsonl").exists():
        result.failures.append("it has no metrics")
        return
    exact = differences(whole.folder, folder, exactly=True)
    result.bitwise = not exact
    result.failures += (
        differences(whole.folder, folder, exactly=False) if scenario.served else exact
    )
    result.healed = faults(folder)


def _outlived(mark: str) -> list[str]:
    """Return the processes that outlive a run, after a while of patience."""
    until = time.monotonic() + _OUTLIVE_S
    while time.monotonic() < until:
        left = [pid for pid in marked(mark) if pid != os.getpid() and command(pid)]
        if not left:
            return []
        time.sleep(0.2)
    return [f"a process outlives it: {command(pid)[:80]}" for pid in left]


def _last(folder: Path, suffix: str) -> str:
    """Return the last line of a log."""
    lines = folder.with_suffix(suffix).read_text(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]


def main() -> None:
    """Run, hit, resume, compare, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=len(cases(0)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, default=Path("runs/chaos.jsonl"))
    parser.add_argument("--work", type=Path, help="folder for the runs; a temporary one by default")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    work = (asked.work or Path(tempfile.mkdtemp(prefix="agentgym-chaos-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    asked.record.parent.mkdir(parents=True, exist_ok=True)
    done = []
    if asked.record.exists():
        done = [Result(**json.loads(line)) for line in asked.record.read_text().splitlines()]
    scenarios = prepare(work)
    known: dict[str, Undisturbed] = {}
    for number, (fault, name) in enumerate(cases(asked.seed)[: asked.runs]):
        if number < len(done):
            continue
        if name not in known:
            shutil.rmtree(work / f"whole-{len(known)}", ignore_errors=True)
            known[name] = undisturbed(scenarios[name], work / f"whole-{len(known)}")
        result = play(number, asked.seed, scenarios[name], known[name], work, fault)
        done.append(result)
        with asked.record.open("a") as stream:
            stream.write(json.dumps(asdict(result)) + "\n")
        how = "; ".join(result.failures) or "the same"
        print(f"{number + 1} of {asked.runs}: {fault}, {name}, {result.moment}: {how}", flush=True)
    text, failed = report(done, FULL_DISK.by)
    print(text)
    if asked.write:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()
