"""A small server that speaks as vLLM does, over a model of transformers, with faults to order.

Its log-probabilities are true: each comes from a whole pass without any cache. It is strict where
vLLM is, and as careless: a prefix that was seen under one ``cache_salt`` is answered with the
weights that saw it first, and weights that cannot be loaded break the engine for good.

In a test it runs in a thread; as a program it takes vLLM's command line, so that it can be started,
watched and killed in vLLM's place.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

SLEEP_TAGS = frozenset(("weights", "kv_cache"))
LORA_ROUTES = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
BLOCK = 16  # tokens that the prefix cache holds together


class Refusal(Exception):  # noqa: N818 (an answer, and no fault of the server's)
    """An answer other than 200."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


class FakeVLLM(ThreadingHTTPServer):
    """The server. What is public may be changed by a test at any time.

    ``faults`` are used up from the front by completions, one a request: ``drop`` hangs up,
    ``drop-late`` does so after the work, ``hang`` waits until ``unhang`` is set, a number is
    answered as that status, ``garbage`` and ``page`` are no JSON, ``packed`` cannot be unpacked,
    ``no-logprobs``, ``no-ids`` and ``other-prompt`` lack or falsify something, ``abort`` stops
    short, ``ok`` does nothing. Bytes are answered as they are, and a dict replaces fields of each
    choice.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        model: str | Path,
        name: str = "tiny",
        port: int = 0,
        max_model_len: int = 512,
        processed: bool = True,
        dev: bool = True,
        lora: bool = True,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.name, self.path = name, str(model)
        self.max_model_len, self.processed = max_model_len, processed
        self.dev, self.lora = dev, lora
        self.version = "0.32.0"
        self.api_key: str | None = None
        self.tokenizer = AutoTokenizer.from_pretrained(self.path)
        self.model = _load(self.path)
        self.adapters: dict[str, Any] = {}
        self.broken = False
        self.deaf = False  # takes weights, says so, and does nothing
        self.healthy = True
        self.gone = False  # answers as a gateway does that has nothing behind it
        self.faults: list[str | int | bytes | dict[str, Any]] = []
        self.unhang = threading.Event()
        self.dies = 0  # in the middle of this completion, the first time; 0: of none
        self.latency = 0.0  # seconds a completion takes
        self.max_logprobs = 20  # likeliest tokens that it tells
        self.runs = threading.Event()  # cleared while it is paused: completions wait
        self.runs.set()
        self.sleep_mode, self.device = True, "cuda"  # as it says that it was started
        self.sleeping: frozenset[str] = frozenset()  # what is not on its GPU
        self.slumber = threading.Event()  # cleared: it does not wake
        self.slumber.set()
        self.asked_asleep = 0  # how many completions were asked for while it slept
        self.more_gets: dict[str, Callable[[], Any]] = {}  # routes that a test adds
        self.more_posts: dict[str, Callable[[Any], Any]] = {}
        self.requests: list[tuple[str, Any]] = []  # path and body of every POST
        self.in_flight = self.most_in_flight = 0
        self.headers_seen: list[dict[str, str]] = []
        self._seen: dict[tuple[str, str, tuple[int, ...]], Any] = {}
        self._lock = threading.Lock()

    def restart(self) -> None:
        """Forget what was loaded and cached, as a process that was started anew."""
        self.model, self.adapters, self._seen, self.broken = _load(self.path), {}, {}, False
        self.sleeping = frozenset()
        self.runs.set()

    def take(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Let these be the weights, by their names in a model folder."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(weights)
        self.model = model

    def completions(self) -> list[Any]:
        """Return the bodies of all completions so far that are no scoring."""
        posts = [body for path, body in self.requests if path == "/v1/completions"]
        return [body for body in posts if body.get("prompt_logprobs") is None]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may hang up
            super().handle_error(request, client_address)

    # Routes -----------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        if path == "/health":
            if self.broken or not self.healthy:
                raise Refusal(503, "")
            return None
        if path == "/version":
            return {"version": self.version}
        if path == "/v1/models":
            base = {"id": self.name, "root": self.path, "parent": None}
            base |= {"object": "model", "max_model_len": self.max_model_len}
            cards = [{"id": n, "parent": self.name, "object": "model"} for n in self.adapters]
            return {"object": "list", "data": [base, *cards]}
        if self.dev and path == "/is_sleeping":
            return {"is_sleeping": bool(self.sleeping) or not self.runs.is_set()}
        if self.dev and path == "/server_info":
            config = {"model_config": {"enable_sleep_mode": self.sleep_mode}}
            return {"vllm_config": config | {"device_config": {"device": self.device}}}
        if path in self.more_gets:
            return self.more_gets[path]()
        raise Refusal(404, "Not Found")

    def post(self, path: str, body: Any) -> Any:
        known = {"/v1/completions": self.complete}
        if self.dev:
            known |= {"/collective_rpc": self.rpc, "/reset_prefix_cache": self.reset}
        if self.lora:
            known |= {LORA_ROUTES[0]: self.load_adapter, LORA_ROUTES[1]: self.unload_adapter}
        known |= self.more_posts
        route, asked = urlsplit(path).path, parse_qs(urlsplit(path).query)
        if self.dev and route == "/sleep":
            return self.sleep(asked)
        if self.dev and route == "/wake_up":
            return self.wake_up(asked)
        if path not in known:
            raise Refusal(404, "Not Found")
        return known[path](body)

    def reset(self, _body: Any) -> Any:
        self._seen.clear()
        return None

    # Sleep: any server says that it does. Requests of one that sleeps wait until it is awake.

    def sleep(self, asked: Any) -> Any:
        level = int(asked.get("level", ["1"])[0])
        self.runs.clear()
        self._seen.clear()
        self.sleeping = SLEEP_TAGS
        return {"status": "sleeping", "level": level}

    def wake_up(self, asked: Any) -> Any:
        self.slumber.wait(30)
        tags = frozenset(asked.get("tags", SLEEP_TAGS))
        if tags <= self.sleeping:  # others are ignored, with a line in the log
            self.sleeping -= tags
        if not self.sleeping:
            self.runs.set()
        return {"status": "sleeping" if self.sleeping else "awake", "tags": asked.get("tags")}

    def _refuse_without_memory(self) -> None:
        if "weights" in self.sleeping:  # there is nothing at these addresses
            self.broken = True
            raise Refusal(500, "CUDA error: an illegal memory access was encountered")

    def rpc(self, body: Any) -> Any:
        if "method" not in body:
            raise Refusal(400, "Missing 'method' in request body")
        if self.broken:
            raise Refusal(500, "EngineCore encountered an issue.")
        assert body["method"] == "reload_weights", body
        self._refuse_without_memory()
        try:
            model = _load(body["kwargs"]["weights_path"])
        except (OSError, ValueError) as error:
            self.broken = True
            raise Refusal(500, f"Call to collective_rpc method failed: {error}") from error
        if not self.deaf:
            self.model = model
        return {"results": [None]}

    def load_adapter(self, body: Any) -> Any:
        if missing := [key for key in ("lora_name", "lora_path") if key not in body]:
            raise Refusal(400, f"{len(missing)} validation errors", missing[0])
        name, path = body["lora_name"], body["lora_path"]
        if name in self.adapters:
            raise Refusal(400, f"The lora adapter '{name}' has already been loaded.")
        self._refuse_without_memory()
        try:
            adapted = _adapted(self.model, Path(path))
        except (OSError, ValueError) as error:
            message = f"Loading lora {name} failed: No adapter found for {path}"
            raise Refusal(404, message) from error
        self.adapters[name] = self.model if self.deaf else adapted
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload_adapter(self, body: Any) -> Any:
        if body["lora_name"] not in self.adapters:
            raise Refusal(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        del self.adapters[body["lora_name"]]
        return f"Success: LoRA adapter '{body['lora_name']}' removed successfully."

    # Completions ------------------------------------------------------------------------------

    def complete(self, body: Any) -> Any:
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.dies -= body.get("prompt_logprobs") is None
            self.asked_asleep += bool(self.sleeping)
            dying = self.dies == 0 and body.get("prompt_logprobs") is None
        try:
            self.runs.wait(30)
            time.sleep(self.latency)
            if dying:
                self._die_once()
            return self._complete(body)
        finally:
            with self._lock:
                self.in_flight -= 1

    def _die_once(self) -> None:
        mark = Path(os.environ.get("FAKE_VLLM_MARK", os.devnull))
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def _complete(self, body: Any) -> Any:
        ids, most = body["prompt"], body["max_tokens"]
        self._check(body, ids)
        # As 0.32 on a CPU, where it takes adapters.
        beside = body.get("prompt_logprobs") is not None and self.in_flight > 1
        self.broken = self.broken or (self.lora and beside)
        if self.broken:
            raise Refusal(500, "EngineCore encountered an issue.")
        model = self._model(body, ids)
        most = min(most, self.max_model_len - len(ids))
        choices = []
        for index in range(body.get("n", 1)):
            sampled = self._sample(model, ids, body, most, body["seed"] + index)
            choices.append(self._choice(index, ids, body, sampled))
        if body.get("prompt_logprobs") is not None:
            choices[0]["prompt_logprobs"] = _prompt_logprobs(model, ids)
        return {"object": "text_completion", "model": body["model"], "choices": choices}

    def _check(self, body: Any, ids: Any) -> None:
        if body["model"] != self.name and body["model"] not in self.adapters:
            raise Refusal(404, f"The model `{body['model']}` does not exist.", "model")
        if len(ids) >= self.max_model_len:
            raise Refusal(
                400,
                f"This model's maximum context length is {self.max_model_len} tokens. However,"
                f" your prompt contains {len(ids)} tokens.",
                "input_tokens",
            )
        if max(ids) >= len(self.tokenizer):
            raise Refusal(400, f"Token id {max(ids)} is out of vocabulary")
        if body["logprobs"] > self.max_logprobs:
            raise Refusal(400, f"Requested sample logprobs of {body['logprobs']}", "logprobs")

    def _model(self, body: Any, ids: list[int]) -> Any:
        model = self.adapters.get(body["model"], self.model)
        if len(ids) < BLOCK or body.get("prompt_logprobs") is not None:
            return model
        key = (body["model"], body.get("cache_salt", ""), tuple(ids[:BLOCK]))
        return self._seen.setdefault(key, model)

    def _sample(
        self, model: Any, ids: list[int], body: Any, most: int, seed: int
    ) -> tuple[list[int], list[torch.Tensor], str, str | None]:
        draws = torch.Generator().manual_seed(seed)
        said: list[int] = []
        logprobs: list[torch.Tensor] = []
        for _ in range(most):
            logits = _logits(model, [*ids, *said])[-1]
            heat = body["temperature"]
            cooled = (logits / (heat or 1.0)).log_softmax(-1)
            token = (
                int(torch.multinomial(cooled.exp(), 1, generator=draws))
                if heat
                else int(logits.argmax())
            )
            said.append(token)
            logprobs.append(cooled if self.processed else logits.log_softmax(-1))
            if token == self.tokenizer.eos_token_id:
                return said, logprobs, "stop", None
            text = self.tokenizer.decode(said, skip_special_tokens=body["skip_special_tokens"])
            for stop in body.get("stop", ()):
                if stop in text:
                    return said, logprobs, "stop", stop
        return said, logprobs, "length", None

    def _choice(self, index: int, prompt: list[int], body: Any, sampled: Any) -> dict[str, Any]:
        said, logprobs, finish, reason = sampled
        names = [f"token_id:{token}" for token in said]
        top = [
            {names[n]: float(row[said[n]])}
            | {f"token_id:{int(t)}": float(row[t]) for t in row.topk(body["logprobs"]).indices}
            for n, row in enumerate(logprobs)
        ]
        return {
            "index": index,
            "text": self.tokenizer.decode(said),
            "logprobs": {
                "tokens": names,
                "token_logprobs": [float(r[t]) for r, t in zip(logprobs, said, strict=True)],
                "top_logprobs": top,
            },
            "finish_reason": finish,
            "stop_reason": reason,
            "token_ids": said,
            "prompt_token_ids": prompt,
            "prompt_logprobs": None,
        }


class _Answer(BaseHTTPRequestHandler):
    server: FakeVLLM
    protocol_version = "HTTP/1.1"

    def log_message(self, *_anything: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(lambda: self.server.get(self.path.partition("?")[0]))

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        server.requests.append((self.path, body))
        server.headers_seen.append(dict(self.headers))
        completion = self.path == "/v1/completions" and body.get("prompt_logprobs") is None
        fault = server.faults.pop(0) if completion and server.faults else "ok"
        if fault == "drop":
            self._hang_up()
        elif fault == "hang":
            server.unhang.wait(30)
            self._hang_up()
        elif isinstance(fault, int):
            self._send(fault, {"error": {"message": "ordered", "param": None, "code": fault}})
        elif isinstance(fault, bytes):
            self._send_bytes(200, fault)
        elif fault == "garbage":
            self._send_bytes(200, b'{"choices": [{"text": ')
        elif fault == "packed":
            self._send_bytes(200, b"{}", packed="gzip")
        elif fault == "page":
            self._send_bytes(200, b"<html>hello</html>", "text/html")
        else:
            self._answer(lambda: _spoil(server.post(self.path, body), fault))
            if fault == "drop-late":
                self._hang_up()

    def _answer(self, work: Any) -> None:
        server = self.server
        if server.gone:
            self._send(503, {"error": {"message": "nothing behind", "param": None, "code": 503}})
            return
        sent = self.headers.get("Authorization")
        if server.api_key and self.path != "/health" and sent != f"Bearer {server.api_key}":
            self._send(401, {"error": "Unauthorized"})
            return
        try:
            answer = work()
        except Refusal as refusal:
            error = {"message": str(refusal), "param": refusal.param, "code": refusal.status}
            self._send(refusal.status, {"error": error})
            return
        self._send(200, answer)

    def _send(self, status: int, answer: Any) -> None:
        if isinstance(answer, str):
            self._send_bytes(status, answer.encode(), "text/plain; charset=utf-8")
        else:
            self._send_bytes(status, b"" if answer is None else json.dumps(answer).encode())

    def _send_bytes(
        self,
        status: int,
        content: bytes,
        kind: str = "application/json",
        packed: str = "identity",
    ) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Encoding", packed)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(2)


def _spoil(answer: Any, fault: str | int | dict[str, Any]) -> Any:
    for choice in answer.get("choices", ()) if isinstance(answer, dict) else ():
        if isinstance(fault, dict):
            choice.update(fault)
        if fault == "no-logprobs":
            choice["logprobs"] = None
        elif fault == "no-ids":
            del choice["token_ids"]
        elif fault == "other-prompt":
            choice["prompt_token_ids"] = [*choice["prompt_token_ids"], 1]
        elif fault == "abort":
            choice["finish_reason"] = "abort"
    return answer


_LOADING = threading.Lock()  # transformers changes for all threads what tensors are made of


def _load(path: str) -> Any:
    with _LOADING:
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def _adapted(model: Any, path: Path) -> Any:
    """Return a copy of a model with an adapter of peft added to its matrices."""
    config = json.loads((path / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    weights = load_file(path / "adapter_model.safetensors")
    copied = copy.deepcopy(model)
    for name, down in weights.items():
        if name.endswith(".lora_A.weight"):
            up = weights[name.replace("lora_A", "lora_B")]
            layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            with torch.no_grad():
                copied.get_submodule(layer).weight += scale * up @ down
    return copied


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0].float()


def _prompt_logprobs(model: Any, ids: list[int]) -> list[Any]:
    rows = _logits(model, ids).log_softmax(-1)
    scored = [{str(t): {"logprob": float(r[t])}} for r, t in zip(rows, ids[1:], strict=False)]
    return [None, *scored]


def running(server: FakeVLLM) -> Iterator[FakeVLLM]:
    """Serve in a thread until the generator is closed."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.unhang.set()
        server.slumber.set()
        server.runs.set()
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    """Serve as ``python -m vllm.entrypoints.openai.api_server`` would."""
    parser = argparse.ArgumentParser()
    for name in ("model", "served-model-name", "host", "dtype", "logprobs-mode"):
        parser.add_argument(f"--{name}")
    for name in ("port", "max-model-len", "max-lora-rank", "max-loras"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("enable-lora", "enable-sleep-mode"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--no-enable-chunked-prefill", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    server = FakeVLLM(
        asked.model,
        asked.served_model_name,
        asked.port,
        asked.max_model_len or 512,
        asked.logprobs_mode == "processed_logprobs",
        os.environ.get("VLLM_SERVER_DEV_MODE") == "1",
        asked.enable_lora,
    )
    server.sleep_mode = asked.enable_sleep_mode
    server.dies = int(os.environ.get("FAKE_VLLM_DIES", "0"))
    server.serve_forever()


if __name__ == "__main__":
    main()
