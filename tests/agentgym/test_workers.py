"""Workers: what is healed, what ends an episode, and that no process is left behind.

``fragile`` is an environment of another package, found by its entry point, in this process and in
spawned ones. Its actions are ``count``, ``die`` and ``hang`` (each time, or the first time only:
the first process to come by leaves a mark), ``raise``, ``fault``, ``exit``, ``refuse``,
``secret``, ``pid``.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from textwrap import dedent

import pytest

from agentgym.envs import registry
from agentgym.errors import (
    DataError,
    EnvFault,
    EpisodeError,
    UsageError,
    WorkerError,
)
from agentgym.ray_worker import connect
from agentgym.types import EnvSpec, Snapshot
from agentgym.worker_process import WorkerProcess
from agentgym.workers import WorkerPool, count_workers

FRAGILE = """
import os, signal, time
from pathlib import Path

from agentgym.envs.base import Outcome, TextEnv
from agentgym.errors import DataError, EnvFault
from agentgym.types import Suite


class FragileEnv(TextEnv):
    name = "fragile"
    default_suite = "fragile/all"
    default_max_turns = 50

    def __init__(self, suite=None, max_turns=None, folder=".", alone=False):
        self.needs_process = alone
        self.folder = Path(folder)
        super().__init__(suite, max_turns)

    @classmethod
    def suite_names(cls):
        return ("fragile/all",)

    def load_suite(self, name):
        return Suite(name, ("a", "b", "broken", "slow"), False, False, "breaks")

    def begin(self, task, seed):
        if task == "broken":
            raise DataError("the task is broken")
        if task == "slow":
            self.once("slow", lambda: time.sleep(600))
        self.count, self.task, self.seed = 0, task, seed
        return f"begun {task} {seed}", self.info()

    def act(self, action):
        self.count += 1
        word, _, rest = action.partition(" ")
        disaster = {
            "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "hang": lambda: time.sleep(600),
        }.get(word)
        if disaster and rest:
            self.once(rest, disaster)
        elif disaster:
            disaster()
        if word == "raise":
            raise ValueError("cannot count")
        if word == "exit":
            raise SystemExit(3)
        if word == "fault":
            raise EnvFault("the disk is gone")
        if word == "refuse":
            raise DataError("no such page")
        observation = str(os.getpid()) if word == "pid" else f"{self.task} {self.seed} {self.count}"
        extra = {"answer": lambda: None} if word == "secret" else {}
        return Outcome(observation, 0.5, word == "end", {**self.info(), **extra})

    def once(self, mark, disaster):
        try:
            (self.folder / mark).touch(exist_ok=False)
        except FileExistsError:
            return
        disaster()

    def expert(self):
        return f"count {self.count}"

    def info(self):
        return dict(task_id="a", task_type="fragile", goal="count", won=False, score=0.0,
                    admissible=True, anchor=str(self.seed))
"""


PLACES = [1, pytest.param("ray:1", marks=pytest.mark.ray)]
"""Where one worker is: in a process, and on Ray; what is true of it there is true of both."""


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The other package, as it is installed."""
    package = tmp_path_factory.mktemp("package")
    metadata = package / "fragile-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[agentgym.envs]\nfragile = fragile_env:FragileEnv\n"
    )
    (package / "fragile_env.py").write_text(FRAGILE)
    return package


@pytest.fixture(scope="module")
def cluster(package: Path) -> Iterator[None]:
    """A cluster of Ray on this host, whose hosts have the other package."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'agentgym[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(package))
        ray = connect()
        yield
        ray.shutdown()


@pytest.fixture
def fragile(
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[EnvSpec]:
    """The specification of the fragile environment, which the other package registers."""
    if request.node.get_closest_marker("ray"):
        request.getfixturevalue("cluster")
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.syspath_prepend(str(package))
    registry._paths.cache_clear()
    yield EnvSpec("fragile", {"folder": str(marks)})
    sys.modules.pop("fragile_env", None)
    registry._paths.cache_clear()


def alone(spec):
    return EnvSpec(spec.name, {**spec.options, "alone": True})


def alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def gone(pid, within=10.0):
    until = time.monotonic() + within
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


def play(spec, actions, workers=1, task="a", step_timeout_s=1.5):
    """Play one episode; return its transcript, the healed faults, and its snapshot."""

    async def run():
        async with WorkerPool(spec, workers, step_timeout_s) as pool, pool.worker() as worker:
            said = [await worker.reset(task, 7)]
            said += [await worker.step(action) for action in actions]
            said.append(await worker.expert())
            return said, worker.faults, worker.snapshot()

    return asyncio.run(run())


@pytest.mark.parametrize("workers", PLACES)
def test_a_worker_elsewhere_says_what_an_inline_one_says(fragile, workers):
    actions = ["count", "", "x" * 10_000, "two\nlines 🚪", "end"]
    assert play(fragile, actions, workers) == play(fragile, actions, workers=0)


@pytest.mark.parametrize("workers", PLACES)
@pytest.mark.parametrize("disaster", ["die", "hang"])
def test_after_one_disaster_the_episode_is_restored_and_goes_on_as_if_nothing_were(
    fragile, disaster, workers
):
    actions = ["count", "count", f"{disaster} once", "count", "pid"]
    said, faults, snapshot = play(fragile, actions, workers)
    observations = [turn[0] for turn in said[1:-2]]
    assert observations == ["a 7 1", "a 7 2", "a 7 3", "a 7 4"]
    assert said[-1] == "count 5"
    assert faults == 1
    assert snapshot == Snapshot("fragile/all", "a", 7, tuple(actions))


@pytest.mark.parametrize("workers", PLACES)
def test_a_worker_killed_from_outside_between_two_steps_is_healed(fragile, workers):
    async def run():
        async with WorkerPool(fragile, workers) as pool, pool.worker() as worker:
            await worker.reset("b", 1)
            pid = int((await worker.step("pid"))[0])
            os.kill(pid, signal.SIGKILL)
            assert gone(pid)
            answer = await worker.step("count")
            return pid, answer[0], worker.faults, int((await worker.step("pid"))[0])

    before, said, faults, after = asyncio.run(run())
    assert said == "b 1 2"
    assert faults == 1
    assert after != before


KILLED_AT_ITS_START = """
import os, signal, sys
from pathlib import Path

starts = Path({folder!r})
if any("spawn_main" in word for word in sys.orig_argv) and len(list(starts.iterdir())) < {times}:
    (starts / str(os.getpid())).touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def kill_starts(tmp_path, monkeypatch):
    """Let the first so many spawned processes be killed before they are ready."""

    def kill(times):
        starts = tmp_path / "starts"
        starts.mkdir()
        script = KILLED_AT_ITS_START.format(folder=str(starts), times=times)
        (tmp_path / "sitecustomize.py").write_text(script)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return kill


def test_a_worker_killed_from_outside_while_it_starts_is_started_again(fragile, kill_starts):
    kill_starts(2)
    (_, answer, _), faults, _ = play(fragile, ["count"], step_timeout_s=60.0)
    assert (answer[0], faults) == ("a 7 1", 0)


def test_a_worker_that_is_killed_at_every_start_is_an_error_with_advice(fragile, kill_starts):
    kill_starts(100)
    with pytest.raises(WorkerError, match=r"SIGKILL before it was ready, and so did .* memory"):
        play(fragile, ["count"])


@pytest.mark.parametrize("workers", PLACES)
def test_the_second_hang_of_an_episode_ends_it_with_its_reason(fragile, workers):
    with pytest.raises(
        EnvFault, match=r"did not answer within 1.5 s in this episode, for the second"
    ):
        play(fragile, ["count", "hang first", "count", "hang second"], workers)


@pytest.mark.parametrize("workers", PLACES)
def test_a_start_that_hangs_once_is_done_again(fragile, workers):
    said, faults, _ = play(fragile, ["count"], workers, task="slow")
    assert said[0][0] == "begun slow 7"
    assert faults == 1


@pytest.mark.parametrize("workers", PLACES)
def test_a_step_that_kills_its_process_every_time_ends_the_episode_after_two_healings(
    fragile, workers
):
    died = r"worker process (died by signal SIGKILL|has died\)) three times"
    with pytest.raises(EnvFault, match=died):
        play(fragile, ["count", "die"], workers)


@pytest.mark.parametrize("workers", [0, *PLACES])
@pytest.mark.parametrize(
    ("action", "why"),
    [("raise", r"raised ValueError: cannot count \(.*fragile_env"), ("fault", "the disk is gone")],
)
def test_an_exception_in_environment_code_ends_the_episode_and_not_the_worker(
    fragile, workers, action, why
):
    async def run():
        async with WorkerPool(fragile, workers) as pool, pool.worker() as worker:
            await worker.reset("a", 7)
            with pytest.raises(EnvFault, match=why):
                await worker.step(action)
            with pytest.raises(EpisodeError, match="call reset first"):
                worker.snapshot()
            with pytest.raises(EpisodeError, match="call reset first"):
                await worker.step("count")
            await worker.reset("b", 8)
            return (await worker.step("count"))[0], worker.faults

    assert asyncio.run(run()) == ("b 8 1", 0)


@pytest.mark.parametrize("workers", PLACES)
def test_what_cannot_be_sent_and_an_exit_end_the_episode_too(fragile, workers):
    with pytest.raises(EnvFault, match="raised SystemExit: 3"):
        play(fragile, ["exit"], workers)
    with pytest.raises(EnvFault, match=r"raised (PicklingError|AttributeError): .*lambda"):
        play(fragile, ["secret"], workers)


@pytest.mark.parametrize("workers", [0, *PLACES])
def test_errors_that_have_a_meaning_come_back_as_they_are(fragile, workers):
    async def run():
        async with WorkerPool(fragile, workers) as pool, pool.worker() as worker:
            with pytest.raises(UsageError, match="unknown task of suite fragile/all 'c'"):
                await worker.reset("c", 1)
            with pytest.raises(DataError, match=r"^the task is broken$"):
                await worker.reset("broken", 1)
            with pytest.raises(EpisodeError, match="no episode of fragile is running"):
                await worker.step("count")
            await worker.reset("a", 1)
            with pytest.raises(DataError, match=r"^no such page$"):
                await worker.step("refuse")
            await worker.step("end")
            with pytest.raises(EpisodeError, match="no episode of fragile is running"):
                await worker.step("count")

    asyncio.run(run())


@pytest.mark.parametrize("workers", [0, *PLACES])
def test_an_episode_branches_from_a_snapshot_into_another_worker(fragile, workers):
    async def run():
        async with (
            WorkerPool(fragile, workers) as pool,
            pool.worker() as trunk,
            pool.worker() as branch,
        ):
            await trunk.reset("b", 3)
            await trunk.step("count")
            observation, info = await branch.restore(trunk.snapshot())
            assert (observation, info["anchor"]) == ("b 3 1", "3")
            assert (await branch.step("count"))[0] == (await trunk.step("count"))[0] == "b 3 2"
            assert branch.snapshot() == trunk.snapshot()

    asyncio.run(run())


@pytest.mark.parametrize("workers", PLACES)
def test_episodes_beside_the_one_that_kills_their_process_are_restored(fragile, workers):
    async def run():
        async with (
            WorkerPool(fragile, workers) as pool,
            pool.worker() as one,
            pool.worker() as other,
        ):
            await one.reset("a", 1)
            await other.reset("b", 2)
            await other.step("count")
            assert (await one.step("die once"))[0] == "a 1 1"
            assert (await other.step("count"))[0] == "b 2 2"
            return one.faults, other.faults

    assert asyncio.run(run()) == (1, 1)


@pytest.mark.parametrize("workers", [2, pytest.param("ray:2", marks=pytest.mark.ray)])
def test_processes_stay_warm_from_episode_to_episode_and_from_loop_to_loop(fragile, workers):
    pool = WorkerPool(fragile, workers)

    async def pids():
        async def one(task):
            async with pool.worker() as worker:
                await worker.reset(task, 0)
                return (await worker.step("pid"))[0]

        return set(await asyncio.gather(*(one(task) for task in "abab")))

    first = asyncio.run(pids())
    assert len(first) == 2
    assert asyncio.run(pids()) == first
    pool.close()
    pool.close()
    assert all(gone(int(pid)) for pid in first)
    with pytest.raises(WorkerError, match="closed; make a new pool"):
        asyncio.run(pids())


def test_an_environment_that_must_be_alone_has_a_process_each_and_the_others_wait(fragile):
    async def run():
        lent = most = 0

        async def one(pool, task):
            nonlocal lent, most
            async with pool.worker() as worker:
                lent += 1
                most = max(most, lent)
                await worker.reset(task, 0)
                pid = (await worker.step("pid"))[0]
                lent -= 1
            return pid

        async with WorkerPool(alone(fragile), 2) as pool:
            pids = await asyncio.gather(*(one(pool, task) for task in "ababab"))
            return pool.capacity, most, len(set(pids))

    assert asyncio.run(run()) == (2, 2, 2)


@pytest.mark.parametrize(("workers", "capacity"), [(0, 3), (1, 3), (2, 6)])
def test_of_heavy_environments_a_process_holds_no_more_than_it_should(
    fragile, monkeypatch, workers, capacity
):
    monkeypatch.setattr(registry.env_class("fragile"), "copies_per_process", 3)
    pool = WorkerPool(fragile, workers)
    assert pool.capacity == capacity
    pool.close()


def test_an_environment_that_must_be_alone_gets_a_process_without_being_asked_for(fragile):
    assert WorkerPool(fragile).capacity is None
    pool = WorkerPool(alone(fragile))
    assert pool.capacity == 1

    async def pid():
        async with pool, pool.worker() as worker:
            await worker.reset("a", 0)
            return int((await worker.step("pid"))[0])

    assert asyncio.run(pid()) != os.getpid()


@pytest.mark.parametrize("workers", PLACES)
def test_closing_in_the_middle_of_a_step_ends_the_process_at_once(fragile, monkeypatch, workers):
    monkeypatch.setattr("agentgym.workers._CLOSE_S", 0.1)

    async def run():
        async with WorkerPool(fragile, workers) as pool, pool.worker() as worker:
            await worker.reset("a", 0)
            pid = int((await worker.step("pid"))[0])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(worker.step("hang"), 0.2)
        return pid

    assert gone(asyncio.run(run()), within=5)


def test_workers_that_hang_are_waited_for_together_and_an_interrupt_leaves_none(
    fragile, monkeypatch
):
    monkeypatch.setattr("agentgym.workers._CLOSE_S", 2.0)
    killed, pids = [], []
    interrupt, result = WorkerProcess.interrupt, Future.result

    def note(process):
        killed.append(time.monotonic())
        interrupt(process)

    def interrupted_once(stopped, timeout=None):
        try:
            return result(stopped, timeout)
        except TimeoutError:
            raise TimeoutError if killed else KeyboardInterrupt from None

    async def run():
        pool = WorkerPool(fragile, 2)
        async with pool.worker() as first, pool.worker() as second:
            for worker in (first, second):
                await worker.reset("a", 0)
                pids.append(int((await worker.step("pid"))[0]))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(worker.step("hang"), 0.2)
        monkeypatch.setattr(WorkerProcess, "interrupt", note)
        monkeypatch.setattr(Future, "result", interrupted_once)
        pool.close()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())
    assert killed[1] - killed[0] < 1.0  # two seconds for both, not for each
    assert all(map(gone, pids))


@pytest.mark.parametrize("workers", PLACES)
def test_an_exception_beside_the_workers_leaves_no_process_behind(fragile, workers):
    pids = []

    async def run():
        async with WorkerPool(fragile, workers) as pool, pool.worker() as worker:
            await worker.reset("a", 0)
            pids.append(int((await worker.step("pid"))[0]))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(run())
    assert gone(pids[0])


def test_a_process_that_does_not_start_in_time_is_an_error_with_advice(fragile):
    async def run():
        async with WorkerPool(fragile, 1, start_timeout_s=0.001) as pool, pool.worker() as worker:
            await worker.reset("a", 0)

    with pytest.raises(WorkerError, match=r"did not start within 0.001 s; allow more"):
        asyncio.run(run())


@pytest.mark.parametrize("options", [{"step_timeout_s": 0}, {"start_timeout_s": 0}])
def test_time_outs_of_nothing_are_refused(options):
    with pytest.raises(UsageError, match="time-outs must be positive"):
        WorkerPool(EnvSpec("corridor"), **options)


@pytest.mark.parametrize(
    "workers", [-1, "-1", "two", "ray:", "ray:0", "ray:-1", "ray:many", "rays"]
)
def test_workers_that_are_no_number_of_processes_or_actors_are_refused(workers):
    with pytest.raises(UsageError, match=f"workers is '?{workers}'?; expected how many processes"):
        WorkerPool(EnvSpec("corridor"), workers)


def test_a_number_of_processes_may_be_text_as_on_a_command_line():
    assert count_workers("3") == count_workers(3) == count_workers("ray:3") == 3


def test_without_ray_its_workers_are_refused_with_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'agentgym\[ray\]'"):
        WorkerPool(EnvSpec("corridor"), "ray:2")


def test_an_unknown_option_is_refused_before_any_process_starts():
    with pytest.raises(UsageError, match="did you mean suite"):
        WorkerPool(EnvSpec("corridor", {"suit": "x"}), 1)


PROGRAM = """
    import asyncio, os, sys, time
    from agentgym.types import EnvSpec
    from agentgym.workers import WorkerPool

    async def run():
        async with WorkerPool(EnvSpec("fragile"), {workers!r}) as pool, pool.worker() as worker:
            await worker.reset("a", 0)
            print((await worker.step("pid"))[0], flush=True)
            {then}

    {guard}
        asyncio.run(run())
"""


def program(folder, package, then="pass", guard='if __name__ == "__main__":', workers=1):
    path = folder / "program.py"
    path.write_text(dedent(PROGRAM).format(then=then, guard=guard, workers=workers))
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(package)},
        start_new_session=True,
    )


def test_a_program_without_a_main_guard_is_told_what_to_do(tmp_path, package):
    running = program(tmp_path, package, guard="if True:")
    out, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("agentgym.errors.WorkerError: ")
    assert "program.py starts worker processes" in last
    assert 'if __name__ == "__main__":' in last
    assert err.count("Traceback") == 1  # the parent's own
    assert "bootstrapping" not in err


@pytest.mark.parametrize("workers", PLACES)
@pytest.mark.parametrize("then", ["time.sleep(600)", "await worker.step('hang')"])
def test_a_worker_does_not_outlive_a_parent_that_was_killed(tmp_path, package, then, workers):
    with program(tmp_path, package, then, workers=workers) as running:
        pid = int(running.stdout.readline())
        time.sleep(0.2)
        assert alive(pid)
        running.kill()
        assert gone(pid)


@pytest.mark.parametrize("workers", PLACES)
def test_an_interrupt_is_the_parents_and_ends_it_and_its_workers_quietly(
    tmp_path, package, workers
):
    running = program(tmp_path, package, "await asyncio.sleep(600)", workers=workers)
    pid = int(running.stdout.readline())
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: parent and workers alike
    _, err = running.communicate(timeout=20)
    assert err.count("Traceback") <= 2  # the parent's KeyboardInterrupt, chained
    assert "agentgym-worker" not in err
    assert gone(pid)
