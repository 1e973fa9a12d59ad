"""Weights on their way to a server: what is written, what is proved, who is blamed."""

from __future__ import annotations

import json
import resource
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from agentgym.errors import DataError, StaleWeightsError, UsageError
from agentgym.policies import serve_devices
from agentgym.policies.hf import HFPolicy
from agentgym.policies.serve_command import ServeOptions
from agentgym.policies.served_folder import link_untied, untie
from agentgym.policies.vllm import VLLMPolicy
from agentgym.policies.vllm_http import ServerOptions
from agentgym.trainers import served as module
from agentgym.trainers.handover import HandOver, way_of, write_weights
from agentgym.trainers.lora import LoraOptions, add_adapter
from agentgym.trainers.served import Serving, named_servers, own_servers
from agentgym.trainers.shared_gpu import SharedGpu
from agentgym.trainers.tiny import Shape, fresh_model, train_tokenizer

SHAPE = Shape(hidden=32, layers=1, intermediate=48, context=128)


def policy() -> HFPolicy:
    tokenizer = train_tokenizer(["to be or not to be, that is the question"] * 10, 300)
    return HFPolicy(fresh_model(tokenizer, SHAPE, seed=0), tokenizer)


def change(trained: HFPolicy) -> None:
    with torch.no_grad():
        for parameter in trained.model.parameters():
            if parameter.requires_grad:
                parameter += 0.05


@pytest.fixture
def trained() -> HFPolicy:
    return policy()


@pytest.fixture
def served(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    policy().save(folder)
    return folder


@pytest.fixture
def server(serve_fake, served):
    return serve_fake(served, max_model_len=128)


@pytest.fixture
def hand_over_to(trained, tmp_path):
    """Makes what hands the weights of ``trained`` to a server."""
    made = []

    def make(server, way="disk", tolerance=1e-3):
        servers = VLLMPolicy(ServerOptions(urls=(server.url,)), trained.tokenizer, way)
        made.append(servers)
        return HandOver(trained, servers, tmp_path / "sync", tolerance, way)

    yield make
    for servers in made:
        servers.close()


def loads(server) -> list[str]:
    return [
        Path(body["kwargs"]["weights_path"]).name
        for path, body in server.requests
        if path == "/collective_rpc" and body
    ]


def test_a_version_goes_once_and_only_the_last_one_stays_on_the_disk(
    server, trained, hand_over_to, tmp_path
):
    hand_over = hand_over_to(server)
    for version in (0, 0, 1, 1, 2):
        hand_over(version)
        change(trained)
    assert loads(server) == ["v000000", "v000001", "v000002"]
    assert [path.name for path in (tmp_path / "sync").iterdir()] == ["v000002"]
    hand_over.close()
    assert not (tmp_path / "sync").exists()


def test_a_server_that_says_yes_and_does_nothing_is_stale(server, trained, hand_over_to):
    hand_over = hand_over_to(server)
    hand_over(0)
    server.deaf = True
    change(trained)
    with pytest.raises(StaleWeightsError) as caught:
        hand_over(1)
    assert "version 1 were handed to http://127.0.0.1" in str(caught.value)
    assert "the server is stale: it answers as before" in str(caught.value)


def test_a_trainer_whose_own_weights_do_not_follow_is_stale(
    server, trained, hand_over_to, monkeypatch
):
    hand_over = hand_over_to(server)
    hand_over(0)
    ours = hand_over._own_scores()
    monkeypatch.setattr(hand_over, "_own_scores", lambda: ours)
    change(trained)
    with pytest.raises(StaleWeightsError, match="the trainer is stale"):
        hand_over(1)


def test_a_server_that_computes_something_else_is_neither(server, trained, hand_over_to):
    hand_over = hand_over_to(server, tolerance=1e-9)  # as far apart as another precision would be
    change(trained)
    with pytest.raises(StaleWeightsError, match="both changed: is the server's model"):
        hand_over(0)


def test_a_full_disk_is_said_and_leaves_no_half_model(server, trained, hand_over_to, tmp_path):
    hand_over = hand_over_to(server)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write the weights for the servers into .*v0"):
            hand_over(0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "sync").iterdir()) == []
    assert loads(server) == []


def test_an_adapter_goes_as_an_adapter_or_merged_into_the_whole(
    server, trained, hand_over_to, served
):
    add_adapter(trained.model, LoraOptions(rank=2), seed=0)
    change(trained)
    hand_over_to(server, way="lora")(1)
    assert len(server.adapters) == 1
    hand_over_to(server, way="disk")(1)
    assert loads(server) == ["v000001"]


def test_the_way_is_that_of_what_is_trained():
    assert way_of("auto", adapter=False) == way_of("disk", adapter=True) == "disk"
    assert way_of("auto", adapter=True) == way_of("lora", adapter=True) == "lora"
    with pytest.raises(UsageError, match=r"no adapter is trained; set policy.lora.rank"):
        way_of("lora", adapter=False)
    assert way_of("nccl", adapter=False) == way_of("nccl", adapter=True) == "nccl"


def test_weights_over_nccl_from_a_trainer_without_a_gpu_are_refused_before_anything_starts(
    server, trained, tmp_path
):
    asked = Serving(
        ServerOptions(urls=(server.url,), sync="nccl"), None, "", "float32", None, 128, ()
    )
    with (
        pytest.raises(UsageError, match="is trained on cpu; NCCL wants it on a GPU"),
        named_servers(trained, asked, tmp_path),
    ):
        pass
    own = replace(asked, serve=ServeOptions(vllm="/bin/true"))
    with (
        pytest.raises(UsageError, match="is trained on cpu; NCCL wants it on a GPU"),
        own_servers(trained, own, tmp_path, print),
    ):
        pass
    assert not server.requests


def test_a_server_that_is_started_to_take_weights_over_nccl_is_told_so(
    trained, tmp_path, monkeypatch
):
    started = []

    class StartedError(Exception):
        pass

    def start(served, options, *_):
        started.append((served.model, options.arguments))
        raise StartedError

    monkeypatch.setattr(module, "Nccl", lambda _: None)
    monkeypatch.setattr(module, "ModelServers", start)
    own = ServeOptions(arguments=("--more",))
    asked = Serving(ServerOptions(sync="nccl"), own, "MODEL", "float32", None, 128, ())
    with pytest.raises(StartedError), own_servers(trained, asked, tmp_path, print):
        pass
    flag = ("--weight-transfer-config", '{"backend": "nccl"}')
    assert started == [("MODEL", (*flag, "--more"))]


def test_a_server_that_is_started_to_sleep_is_told_so(trained, tmp_path, monkeypatch):
    started = []

    class StartedError(Exception):
        pass

    def start(served, options, *_):
        started.append(options.arguments)
        raise StartedError

    monkeypatch.setattr(module, "ModelServers", start)
    own = ServeOptions(arguments=("--gpu-memory-utilization", "0.40"))
    asked = Serving(ServerOptions(sleep=True), own, "MODEL", "float32", None, 128, ())
    with pytest.raises(StartedError), own_servers(trained, asked, tmp_path, print):
        pass
    assert started == [("--enable-sleep-mode", "--gpu-memory-utilization", "0.40")]


@pytest.mark.parametrize("url", ["http://h:1/?api_key=hunter2", "http://h:abc"])
def test_a_url_that_is_none_or_carries_a_secret_is_refused_before_anything_is_loaded(url):
    asked = Serving(ServerOptions(urls=(url,)), None, "MODEL", "float32", None, 128, ())
    with pytest.raises(UsageError, match="http://HOST:PORT") as refused:
        asked.check()
    assert "hunter2" not in str(refused.value)


def test_a_server_of_the_runs_own_is_waited_for_as_long_as_it_may_take_to_start(
    server, trained, tmp_path, monkeypatch
):
    waited = []

    @contextmanager
    def there(*_):
        yield SimpleNamespace(urls=(server.url,))

    @contextmanager
    def note(_trained, asked, *_):
        waited.append(asked.server.patience)
        yield None, None

    monkeypatch.setattr(module, "ModelServers", there)
    monkeypatch.setattr(module, "named_servers", note)
    for own in (ServeOptions(patience=900), ServeOptions(patience=60)):
        for named in (ServerOptions(), ServerOptions(patience=300), ServerOptions(patience=5)):
            asked = Serving(named, own, "MODEL", "float32", None, 128, ())
            with own_servers(trained, asked, tmp_path, print):
                pass
    assert waited == [900, 900, 5, 300, 300, 5]


# Whose turn it is --------------------------------------------------------------------------------


class Sleepers:
    """A server of the run, as what samples and as a process."""

    def __init__(self):
        self.told = []

    def sleep(self):
        self.told.append("sleep")

    def be_asleep(self, asleep):
        self.told.append(f"asleep is {asleep}")


def test_the_process_counts_as_asleep_from_when_it_sleeps_until_it_shall_wake(monkeypatch):
    both = Sleepers()
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: both.told.append("free"))
    gpu = SharedGpu(both, both)
    gpu.to_learner()
    # Until then it is started again where it is gone, as it can only sleep if it is there.
    assert both.told == ["sleep", "asleep is True"]
    gpu.to_servers()
    assert both.told[2:] == ["free", "asleep is False"]


def test_room_is_made_when_weights_are_written_and_before_servers_take_them(
    server, trained, tmp_path, monkeypatch
):
    options = ServerOptions(urls=(server.url,), sleep=True)
    servers = VLLMPolicy(options, trained.tokenizer)
    seen = []

    def free():
        written = (tmp_path / "sync" / "v000001" / "config.json").exists()
        seen.append((written, server.sleeping))

    handing = HandOver(trained, servers, tmp_path / "sync", 1e-3, "disk", gpu=SharedGpu(servers))
    with closing(servers):
        handing(0)
        handing.rest()
        monkeypatch.setattr(torch.cuda, "empty_cache", free)
        handing(1)
        assert seen == [(True, {"weights", "kv_cache"})]
        handing.rest()
        handing(1)  # the same once more, and it is awake again
        assert not server.sleeping
        monkeypatch.undo()
        handing.rest()
        handing.close()
    assert not server.sleeping


def test_servers_on_gpus_of_their_own_do_not_rest(server, trained, hand_over_to):
    handing = hand_over_to(server)
    handing(0)
    handing.rest()
    assert not server.sleeping
    handing(0)
    assert loads(server) == ["v000000"]


# An output matrix of its own ---------------------------------------------------------------------


def test_what_is_served_has_an_output_matrix_of_its_own_and_is_the_same_model(trained, tmp_path):
    assert trained.model.config.tie_word_embeddings
    write_weights(trained, tmp_path / "w", "disk")
    head = load_file(tmp_path / "w" / "model-lm_head.safetensors")["lm_head.weight"]
    assert torch.equal(head, trained.model.get_input_embeddings().weight)
    again = HFPolicy.from_pretrained(tmp_path / "w", device="cpu")
    assert not again.model.config.tie_word_embeddings
    ids = torch.tensor([[20, 21, 22]])
    with torch.inference_mode():
        assert torch.equal(again.model(input_ids=ids).logits, trained.model(input_ids=ids).logits)


def test_the_folder_that_is_linked_stays_as_it_was(served, tmp_path):
    before = {path.name: path.read_bytes() for path in served.iterdir()}
    linked = link_untied(served, tmp_path / "linked")
    assert {path.name: path.read_bytes() for path in served.iterdir()} == before
    assert json.loads((linked / "config.json").read_text())["tie_word_embeddings"] is False
    assert not (linked / "model.safetensors").exists()
    assert (linked / "model-lm_head.safetensors").exists()
    assert (linked / "tokenizer.json").is_symlink()


def test_a_model_that_has_an_output_matrix_stays_as_it_is(trained, served):
    (served / "config.json").write_text('{"tie_word_embeddings": false}')
    untie(served)
    assert not (served / "model-lm_head.safetensors").exists()


def test_the_matrix_is_listed_where_weights_are_in_several_files(tmp_path):
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": true}')
    name = "model.embed_tokens.weight"
    save_file({name: torch.ones(3, 2)}, tmp_path / "model-00001-of-00002.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: "model-00001-of-00002.safetensors"}}))
    untie(tmp_path)
    assert (
        json.loads(index.read_text())["weight_map"]["lm_head.weight"] == "model-lm_head.safetensors"
    )


def test_a_folder_that_cannot_be_served_is_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"cannot make .* ready to be served"):
        untie(tmp_path)


PLACE = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


GPUS = ("0", "1", "2", "3")
MANY_HOSTS = PLACE | {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "3"}


@pytest.mark.parametrize(
    ("place", "settings", "gpus", "said"),
    [
        (PLACE, {}, GPUS, r'\(0, 1\), and the run.* begin there.*policy.serve.devices=\["2"\]'),
        (PLACE, {"replicas": 2}, GPUS, r'policy.serve.devices=\["2", "3"\]'),
        (PLACE, {}, ("4", "5", "7"), r'policy.serve.devices=\["7"\]'),
        (PLACE, {}, GPUS[:2], "they need 1 others, and none of this host's CUDA_VISIBLE_DEVICES"),
        (PLACE, {"replicas": 2}, GPUS[:3], "they need 2 others, and only 2 of this host's"),
        (PLACE, {"tensor_parallel": 3}, GPUS, "they need 3 others, and only 2, 3 of this host's"),
        (PLACE, {"devices": ("1",)}, GPUS, r'devices names 1 of these; .*devices=\["2"\]'),
        (PLACE, {"devices": ("3", "0")}, GPUS, "policy.serve.devices names 0 of these"),
        (PLACE, {"devices": ("2",)}, GPUS, None),
        (PLACE, {"devices": ("6",)}, GPUS, None),
        (MANY_HOSTS, {}, GPUS, r'3 processes train.*policy.serve.devices=\["3"\]'),
        (MANY_HOSTS, {"devices": ("3",)}, GPUS, None),
        (PLACE, {}, (), None),
        (PLACE | {"ACCELERATE_USE_CPU": "1"}, {}, GPUS, None),
        ({"WORLD_SIZE": "1"}, {}, GPUS, None),
    ],
)
def test_servers_of_a_run_on_many_processes_are_told_which_gpus_are_not_theirs(
    place, settings, gpus, said, monkeypatch
):
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "visible_devices", lambda: gpus)
    monkeypatch.setattr(serve_devices, "visible_devices", lambda: gpus)
    own = ServeOptions(vllm="/bin/true", **settings)
    asked = Serving(ServerOptions(), own, "MODEL", "float32", None, 128, ())
    with pytest.raises(UsageError, match=said) if said else nullcontext():
        asked.check()
