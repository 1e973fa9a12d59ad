"""NCCL by itself: ranks in different programs, which share nothing but a name of 128 bytes.

torch's own groups want a store that all ranks reach. vLLM since 0.30 takes the name alone, so its
ranks and the trainer's need nothing of each other's Python. What is called here is NCCL's own C
interface (nccl.h), from the library that torch has loaded.

The first thing that vLLM's ranks do in a group is to add up one number; so does this.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from typing import Any

import torch

from agentgym.errors import UsageError
from agentgym.policies.vllm_http import Lost

_LIBRARY = "libnccl.so.2"
_NAME_BYTES = 128
_SUM = 0
_NUMBERS = {  # ncclDataType_t
    torch.int8: 0,
    torch.uint8: 1,
    torch.int32: 2,
    torch.int64: 4,
    torch.float16: 6,
    torch.float32: 7,
    torch.float64: 8,
    torch.bfloat16: 9,
}


class UniqueId(ctypes.Structure):
    """``ncclUniqueId``, which is passed by value."""

    _fields_ = (("internal", ctypes.c_char * _NAME_BYTES),)


_PROTOTYPES: dict[str, list[Any]] = {
    "ncclGetUniqueId": [POINTER(UniqueId)],
    "ncclCommInitRank": [POINTER(c_void_p), c_int, UniqueId, c_int],
    "ncclAllReduce": [c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p],
    "ncclBroadcast": [c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p],
    "ncclCommAbort": [c_void_p],
}


class Nccl:
    """Makes groups of ranks, each on a GPU of its own.

    Args:
        device: The GPU of this rank.
        library: NCCL; None takes the one that torch has loaded.

    Raises:
        UsageError: The device is no GPU, or NCCL is not there.
    """

    def __init__(self, device: torch.device, library: Any = None) -> None:
        if device.type != "cuda":
            raise UsageError(
                f"policy.server.sync is nccl, and the model is trained on {device.type}; NCCL wants"
                " it on a GPU, and the server on another: set policy.server.sync to disk"
            )
        self.device = device
        self._library = _library() if library is None else library
        for name, arguments in _PROTOTYPES.items():
            getattr(self._library, name).argtypes = arguments

    def new_id(self) -> bytes:
        """Return the name of a new group, whose rank 0 this process will be."""
        name = UniqueId()
        self.call("ncclGetUniqueId", byref(name))
        return bytes(name)

    def join(self, name: bytes, ranks: int) -> NcclGroup:
        """Be rank 0 of a group; returns when all ranks are there.

        Raises:
            Lost: NCCL could not connect them.
        """
        communicator = c_void_p()
        with torch.cuda.device(self.device):
            given = UniqueId.from_buffer_copy(name)
            self.call("ncclCommInitRank", byref(communicator), ranks, given, 0)
            group = NcclGroup(self, communicator)
            group.add_up(torch.zeros(1, device=self.device))
        return group

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library.

        Raises:
            Lost: It failed; the message has NCCL's reason.
        """
        code = getattr(self._library, name)(*arguments)
        if code:
            reason = self._library.ncclGetErrorString(code).decode()
            raise Lost(
                f"{name}: {reason}; NCCL wants a GPU of its own for each rank, and the same version"
                " of itself on both sides (VLLM_NCCL_SO_PATH tells vLLM which)"
            )


class NcclGroup:
    """Rank 0 of a group, on a stream of its own: what hangs there holds up nothing else."""

    def __init__(self, nccl: Nccl, communicator: c_void_p) -> None:
        self._nccl, self._communicator = nccl, communicator
        self._stream = torch.cuda.Stream(nccl.device)  # type: ignore[no-untyped-call]
        self._left = False

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Begin to send a contiguous tensor; it must stay as it is until ``wait`` returned.

        Raises:
            Lost: NCCL could not.
        """
        self._begin("ncclBroadcast", tensor, 0)

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by the sum of all ranks'.

        Raises:
            Lost: NCCL could not.
        """
        self._begin("ncclAllReduce", tensor, _SUM)
        self.wait()

    def wait(self) -> None:
        """Wait until all is sent, or the group was left."""
        self._stream.synchronize()

    def abort(self) -> None:
        """Leave the group at once; what waits in another thread ends."""
        if not self._left:
            self._left = True
            with suppress(Lost):  # nothing more can be done for it
                self._nccl.call("ncclCommAbort", self._communicator)

    def _begin(self, name: str, tensor: torch.Tensor, how: int) -> None:
        # What was computed must be there before it is sent.
        self._stream.wait_stream(torch.cuda.default_stream(self._nccl.device))
        where, stream = c_void_p(tensor.data_ptr()), c_void_p(self._stream.cuda_stream)
        number = _NUMBERS[tensor.dtype]
        self._nccl.call(name, where, where, tensor.numel(), number, how, self._communicator, stream)


def _library() -> Any:
    try:
        loaded = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise UsageError(
            f"policy.server.sync is nccl, and {_LIBRARY} cannot be loaded ({error}); install a"
            " torch for CUDA, or set policy.server.sync to disk"
        ) from error
    loaded.ncclGetErrorString.restype = c_char_p
    return loaded
