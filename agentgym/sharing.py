"""A run on one GPU that learner and server have in turns: what it excludes, and who may take what.

``policy.server.sleep`` asks for it. What the server may take is reckoned as ``doctor --plan`` does,
so that what was planned is what is run.
"""

from __future__ import annotations

import torch

from agentgym.config import Config
from agentgym.errors import UsageError
from agentgym.launch import launched
from agentgym.memory_plan import GIB, Serving
from agentgym.model_shape import ModelShape, shape_of
from agentgym.policies.bundled import resolve_model
from agentgym.policies.serve_command import ServeOptions
from agentgym.policies.serve_devices import has_gpu
from agentgym.run_plan import Plan, trainers_of, training_of

_SHARE = "--gpu-memory-utilization"
_OPTION = "policy.server.sleep (--sleep)"
_OFF = "leave it out, or say --no-sleep where a run was begun with it"
_HOW = f'--set \'policy.serve.arguments=["{_SHARE}", "0.5"]\''


def refuse_unshareable(config: Config) -> None:
    """Refuse what does not go together with a server that sleeps while the learner learns.

    Raises:
        UsageError: Something of the run does not; the message says what to change.
    """
    if not config.policy.server.sleep:
        return
    for wrong, what, mend in _excluded(config):
        if wrong:
            raise UsageError(
                f"{_OPTION} lets one server sleep while the learner learns; {what}: {mend}"
            )


def _excluded(config: Config) -> list[tuple[bool, str, str]]:
    """Return what there must not be: whether it is, what it is, and what mends it."""
    server, serve, stale = config.policy.server, config.policy.serve, config.rollout.staleness
    own = ServeOptions() if serve is None else serve
    count = max(len(server.urls), own.replicas * own.tensor_parallel)
    processes = launched().size
    return [
        (
            serve is None and not server.urls,
            "the model samples in this process",
            f"let a server sample (--serve or --server), or {_OFF}",
        ),
        (
            stale > 0,
            f"rollout.staleness is {stale}, for which the server must play meanwhile",
            f"set rollout.staleness = 0, or give the server a GPU of its own, and {_OFF}",
        ),
        (
            server.sync == "nccl",
            "policy.server.sync is nccl, which refuses two ranks on one GPU",
            "set policy.server.sync = auto",
        ),
        (
            processes > 1,
            f"there are {processes} processes, and it would sleep for one of them",
            f"start one process, or give the servers GPUs of their own, and {_OFF}",
        ),
        (
            count > 1,
            f"servers on {count} GPUs are asked for",
            f"ask for one server on one GPU, or give them GPUs of their own, and {_OFF}",
        ),
        (
            bool(own.devices),
            f"policy.serve.devices names GPU {', '.join(own.devices)}",
            "leave that out, as the server is on the learner's",
        ),
        (
            serve is not None and not has_gpu(),
            "there is no GPU here, and on a CPU vLLM refuses --enable-sleep-mode",
            _OFF,
        ),
    ]


def served_beside(config: Config) -> ServeOptions | None:
    """Return how the run's own server is started, if it has one.

    One that sleeps while the learner learns may take what that leaves while it samples, unless its
    ``arguments`` say what it may take.

    Raises:
        UsageError: The learner is on no GPU; the model's sizes are not known; it does not fit.
    """
    serve = config.policy.serve
    if serve is None or not config.policy.server.sleep:
        return serve
    named = {argument.partition("=")[0].replace("_", "-") for argument in serve.arguments}
    if _SHARE in named:
        return serve
    if not torch.cuda.is_available():
        raise UsageError(
            f"{_OPTION} is for a server on the learner's GPU, and the learner is on the CPU; {_OFF}"
        )
    try:
        shape = shape_of(resolve_model(config.policy.model))
    except UsageError as error:
        raise UsageError(f"{error}; or say what the server may take: {_HOW}") from error
    share = share_of_server(config, shape, torch.cuda.get_device_properties(0).total_memory)
    return serve.model_copy(update={"arguments": (_SHARE, f"{share:.2f}", *serve.arguments)})


def share_of_server(config: Config, shape: ModelShape, gpu: float) -> float:
    """Return the share of a GPU that the server may take, rounded down to hundredths.

    Args:
        config: The run's.
        shape: The model's.
        gpu: Bytes that the GPU has.

    Raises:
        UsageError: Learner or server do not fit.
    """
    training = training_of(config, in_process=False)
    serving = Serving(1, gpu, half=training.half)
    plan = Plan(shape, training, trainers_of(config, 1, gpu), serving, shared=True, sleeps=True)
    if plan.servers is None or not plan.fits:
        raise UsageError(
            f"learner and server do not fit on one GPU of {gpu / GIB:.0f} GiB in turns, by the"
            " arithmetic of agentgym doctor --plan, which tells what takes how much; or"
            f" say what the server may take: {_HOW}"
        )
    return plan.servers.utilization
