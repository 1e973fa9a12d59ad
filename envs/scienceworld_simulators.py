"""ScienceWorld simulators: several in a Java process, none seeing another, lent and taken back.

The simulator keeps its random generator, object numbers and simplifications in variables of the
whole Java process, so two of them in one process disturb each other. Here each has a class loader
of its own, and with it its own copy of those variables. A further simulator then costs the
classes and what they compiled to, not a process.

Everything inside a class loader is called through ``java.lang.reflect.Method``: py4j remembers
methods by the name of their class, and would call those of another loader's class.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

from agentgym.envs.scienceworld_jvm import Jvm, guarded

SIMULATORS = 16
"""How many simulators a Java process holds at most; its heap is bounded for so many."""

_SCRAMBLE = 0x5DEECE66D  # what java.util.Random.setSeed does to a seed before it is the state
_ISOLATED = "scienceworld.runtime.pythonapi.PythonInterface"
_METHODS: dict[str, tuple[str, dict[str, tuple[type, ...]]]] = {
    "interface": (
        _ISOLATED,
        {
            "load": (str, int, str, bool),
            "step": (str,),
            "agentInterface": (),
            "getTaskDescription": (),
            "getPossibleActions": (),
            "getPossibleObjects": (),
            "getValidActionObjectCombinations": (),
            "getGoldActionSequence": (),
            "getTaskNames": (),
            "getTaskMaxVariations": (str,),
        },
    ),
    "agent": ("scienceworld.runtime.AgentInterface", {"isInErrorState": (), "step": (str,)}),
    "option": ("scala.Option", {"get": ()}),
}


class IsolatedSimulator:
    """The raw simulator in a class loader of its own.

    Not for use by two threads at once.
    """

    def __init__(self, jvm: Jvm) -> None:
        self.jvm = jvm
        loader = jvm.class_loader()
        self._methods = {
            f"{short}.{method}": loader.loadClass(name).getMethod(
                method, jvm.array("Class", [jvm.java_type(kind) for kind in kinds])
            )
            for short, (name, methods) in _METHODS.items()
            for method, kinds in methods.items()
        }
        new = loader.loadClass(_ISOLATED).getDeclaredConstructor(jvm.array("Class", ()))
        self._interface = new.newInstance(jvm.array("Object", ()))
        self._arguments = {count: jvm.array("Object", [None] * count) for count in (1, 4)}
        module = loader.loadClass("scala.util.Random$").getField("MODULE$").get(None)
        generator = loader.loadClass("scala.util.Random").getMethod("self", jvm.array("Class", ()))
        self._random = generator.invoke(module, None)

    def ask(self, method: str, *arguments: object) -> Any:
        """Call a method of the simulator's interface."""
        return self._call(f"interface.{method}", self._interface, arguments)

    def ask_for_list(self, method: str) -> tuple[str, ...]:
        """Call a method that returns a list of strings."""
        # Joined in Java: one message instead of one for each string.
        text = str(self.jvm.join("\n", self.ask(method)))
        return tuple(text.split("\n")) if text else ()

    def agent(self) -> Any:
        """Return the interface of the agent of the task that is loaded."""
        return self._call("option.get", self.ask("agentInterface"), ())

    def ask_agent(self, agent: Any, method: str, *arguments: object) -> Any:
        """Call a method of the agent's interface."""
        return self._call(f"agent.{method}", agent, arguments)

    def text(self, value: Any) -> str:
        """Return Java's own text for a value."""
        return str(self.jvm.text_of(value))

    def random_state(self) -> int:
        """Return the state of the random generator that the simulator draws from."""
        return int(self.jvm.random_seed.get(self._random))

    def set_random_state(self, state: int) -> None:
        """Set the state of the random generator back."""
        self._random.setSeed(state ^ _SCRAMBLE)

    def _call(self, method: str, target: Any, arguments: Sequence[object]) -> Any:
        packed = None
        if arguments:
            packed = self._arguments[len(arguments)]
            self.jvm.fill(packed, arguments)
        return self._methods[method].invoke(target, packed)


class Pool:
    """The simulators of this process: lent to environments, kept warm between them.

    What was lent and given back is lent again, for a load makes a simulator as good as new. The
    Java processes stay until this process ends or :meth:`close`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jvms: list[Jvm] = []
        self._idle: list[IsolatedSimulator] = []
        self._there: WeakSet[IsolatedSimulator] = WeakSet()  # idle, lent, or lent and forgotten

    def lend(self) -> IsolatedSimulator:
        """Return a simulator that nobody else has.

        Raises:
            DataError: There is no Java, or it does not start.
        """
        with self._lock:
            self._bury()
            if self._idle:
                return self._idle.pop()
            jvm = self._jvm_with_room()
            with guarded(jvm):
                simulator = IsolatedSimulator(jvm)
            self._there.add(simulator)
            return simulator

    def take_back(self, simulator: IsolatedSimulator) -> None:
        """Keep a simulator for the next one who asks; one whose process is gone is forgotten."""
        with self._lock:
            if simulator.jvm in self._jvms:
                self._idle.append(simulator)
            self._bury()

    def pids(self) -> tuple[int, ...]:
        """Return the process ids of the Java processes that run."""
        with self._lock:
            return tuple(jvm.pid for jvm in self._jvms if jvm.alive)

    def close(self) -> None:
        """End all Java processes; simulators that are lent are lost."""
        with self._lock:
            jvms, self._jvms, self._idle = self._jvms, [], []
        for jvm in jvms:
            jvm.close()

    def abandon(self) -> None:
        """Forget what belongs to the parent of a forked process, whose connections it shares."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        for jvm in self._jvms:
            jvm.abandon()
        self._inherited = self._jvms  # kept, or Python would want to wait for the processes
        self._jvms, self._idle = [], []

    def _jvm_with_room(self) -> Jvm:
        held = Counter(simulator.jvm for simulator in self._there)
        for jvm in self._jvms:
            if held[jvm] < SIMULATORS:
                return jvm
        self._jvms.append(Jvm())
        return self._jvms[-1]

    def _bury(self) -> None:
        """Forget the processes that are gone."""
        for jvm in [jvm for jvm in self._jvms if not jvm.alive]:
            self._jvms.remove(jvm)
            self._idle = [one for one in self._idle if one.jvm is not jvm]
            jvm.close()


POOL = Pool()
atexit.register(POOL.close)
if sys.platform != "win32":  # where nothing forks
    os.register_at_fork(after_in_child=POOL.abandon)
