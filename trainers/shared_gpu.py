"""One GPU that a vLLM server and the learner have in turns.

While the learner learns the server sleeps; while the server samples the learner keeps its weights
and moments there, and gives back what only an update needs.
"""

from __future__ import annotations

import torch

from agentgym.policies.serve_many import ModelServers
from agentgym.policies.vllm import VLLMPolicy


class SharedGpu:
    """Whose turn it is.

    Args:
        servers: What samples.
        own: The same servers as processes, where they were started for the run; they are watched.
    """

    def __init__(self, servers: VLLMPolicy, own: ModelServers | None = None) -> None:
        self._servers, self._own = servers, own

    def to_learner(self) -> None:
        """Send the servers to sleep, until they take weights.

        Raises:
            ServerError: One does not go to sleep.
        """
        self._servers.sleep()  # waits for one that is being started again, which would need room
        if self._own is not None:
            self._own.be_asleep(True)

    def to_servers(self) -> None:
        """Make room for them to wake, or to be started again."""
        free_unused()
        if self._own is not None:
            self._own.be_asleep(False)


def free_unused() -> None:
    """Give back what torch keeps of the GPU for later, and no tensor has; on a CPU nothing."""
    torch.cuda.empty_cache()
