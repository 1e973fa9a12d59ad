"""A server that speaks as vLLM does, computes nothing, and takes as long as a model would.

It has a number of slots. A request waits for one, in the order of arrival, and holds it for a time
that is drawn from a lognormal distribution by the request's own seed: whoever asks, in whatever
order, the same turn takes the same time. Scoring and taking weights take none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
from typing import Any

MAX_MODEL_LEN = 4096
SIGMA = 1.0
NAME = "latency"


class LatencyServer:
    """What is served.

    Args:
        slots: Requests that are worked on at once.
        median: Seconds that a request takes.
        answers: Token ids of what is answered; one is drawn for each request.
    """

    def __init__(self, slots: int, median: float, answers: list[list[int]]) -> None:
        self.median, self.answers = median, answers
        self._slots = asyncio.Semaphore(slots)
        self._spent = {"requests": 0, "seconds": 0.0}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it is closed."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                _, path, _ = head.split(b" ", 2)
                body = await reader.readexactly(_length(head))
                status, answer = await self._answer(path.decode(), json.loads(body or b"{}"))
                content = json.dumps(answer).encode()
                writer.write(
                    b"HTTP/1.1 %d x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                    % (status, len(content))
                    + content
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has hung up
        finally:
            writer.close()

    async def _answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/completions" and "prompt" in body:
            return 200, await self._complete(body)
        known = {
            "/version": {"version": "0.32.0"},
            "/health": {},
            "/v1/models": {"data": [{"id": NAME, "max_model_len": MAX_MODEL_LEN}]},
            "/spent": self._spent,
            "/collective_rpc": {"results": [None]},  # takes weights, as it would compute nothing
        }
        return (200, known[path]) if path in known else (404, {})

    async def _complete(self, body: Any) -> Any:
        ids = body["prompt"]
        if body.get("prompt_logprobs") is not None:
            scores = [None, *({str(token): {"logprob": -1.0}} for token in ids[1:])]
            return {"choices": [{"index": 0, "prompt_logprobs": scores}]}
        draws = random.Random(body["seed"])
        seconds = draws.lognormvariate(math.log(self.median), SIGMA)
        said = draws.choice(self.answers)
        async with self._slots:
            await asyncio.sleep(seconds)
        self._spent["requests"] += 1
        self._spent["seconds"] += seconds
        logprobs = {"token_logprobs": [-1.0] * len(said), "top_logprobs": [{}] * len(said)}
        choice = {"index": 0, "token_ids": said, "prompt_token_ids": ids, "logprobs": logprobs}
        return {"choices": [{**choice, "finish_reason": "stop"}]}


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def main() -> None:
    """Serve on a free port, which is said first, until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--median", type=float, required=True)
    parser.add_argument("--answers", type=json.loads, required=True, help="lists of ids, as JSON")
    asked = parser.parse_args()
    served = LatencyServer(asked.slots, asked.median, asked.answers)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
