"""NCCL's C interface, called by its prototypes; a library of functions stands in for NCCL."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from ctypes import CFUNCTYPE, POINTER, c_int, c_size_t, c_void_p

import pytest
import torch

from agentgym.errors import UsageError
from agentgym.policies.vllm_http import Lost
from agentgym.trainers import nccl
from agentgym.trainers.nccl import Nccl, UniqueId

NAME = bytes(range(128))  # a zero first: it is no text
COMMUNICATOR, STREAM = 0x7000_0000_0000, 0x6000_0000_0000  # more than 32 bits
COLLECTIVE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p)


class Library:
    """C functions that note how they were called."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.fails: dict[str, int] = {}

        @CFUNCTYPE(c_int, POINTER(UniqueId))
        def get(name):
            ctypes.memmove(name, NAME, len(NAME))
            return 0

        @CFUNCTYPE(c_int, POINTER(c_void_p), c_int, UniqueId, c_int)
        def join(communicator, ranks, name, rank):
            communicator[0] = COMMUNICATOR
            return self.note("join", ranks, bytes(name), rank)

        def collective(name):
            return COLLECTIVE(lambda *given: self.note(name, *given))

        @CFUNCTYPE(c_int, c_void_p)
        def abort(communicator):
            return self.note("abort", communicator)

        self.ncclGetUniqueId, self.ncclCommInitRank, self.ncclCommAbort = get, join, abort
        self.ncclAllReduce, self.ncclBroadcast = collective("sum"), collective("broadcast")

    def ncclGetErrorString(self, code):
        return f"reason {code}".encode()

    def note(self, name, *given) -> int:
        self.calls.append((name, *given))
        return self.fails.get(name, 0)


class Stream:
    """Of a GPU that is not there."""

    cuda_stream = STREAM

    def __init__(self, device) -> None:
        self.done = 0

    def wait_stream(self, _other) -> None:
        pass

    def synchronize(self) -> None:
        self.done += 1


@pytest.fixture
def library(monkeypatch):
    zeros = torch.zeros
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "default_stream", lambda _: None)
    monkeypatch.setattr(torch, "zeros", lambda size, device: zeros(size))
    return Library()


def gpu(library) -> Nccl:
    return Nccl(torch.device("cuda", 1), library)


def test_a_group_is_joined_as_rank_0_by_its_name_and_one_number_is_added_up(library):
    nccl = gpu(library)
    assert nccl.new_id() == NAME
    nccl.join(NAME, 3)
    joined, added = library.calls
    assert joined == ("join", 3, NAME, 0)
    name, sent, received, *rest = added
    assert (name, sent) == ("sum", received)
    # One number of ncclFloat32 (7), by ncclSum (0).
    assert rest == [1, 7, 0, COMMUNICATOR, STREAM]


@pytest.mark.parametrize(("dtype", "code"), [(torch.bfloat16, 9), (torch.float32, 7)])
def test_a_tensor_is_broadcast_where_it_lies_from_rank_0(library, dtype, code):
    group = gpu(library).join(NAME, 2)
    tensor = torch.ones(5, 7, dtype=dtype)
    group.broadcast(tensor)
    where = tensor.data_ptr()
    assert library.calls[-1] == ("broadcast", where, where, 35, code, 0, COMMUNICATOR, STREAM)
    waited = group._stream.done
    group.wait()
    assert group._stream.done == waited + 1


def test_a_group_is_left_once_whatever_nccl_says(library):
    library.fails["abort"] = 1
    group = gpu(library).join(NAME, 2)
    group.abort()
    group.abort()
    assert [call for call in library.calls if call[0] == "abort"] == [("abort", COMMUNICATOR)]


def test_a_failure_has_nccls_reason_and_counts_as_lost(library):
    library.fails["join"] = 5
    with pytest.raises(Lost, match=r"ncclCommInitRank: reason 5; NCCL wants a GPU of its own"):
        gpu(library).join(NAME, 2)


def test_a_model_that_is_trained_on_no_gpu_is_refused():
    with pytest.raises(UsageError, match="is trained on cpu; NCCL wants it on a GPU"):
        Nccl(torch.device("cpu"))


def test_a_torch_without_nccl_is_refused(monkeypatch):
    monkeypatch.setattr(nccl, "_LIBRARY", "libnccl_that_is_not_there.so")
    with pytest.raises(UsageError, match=r"libnccl_that_is_not_there\.so cannot be loaded"):
        Nccl(torch.device("cuda"))
