"""Any OpenAI-compatible chat endpoint as a policy, for evaluation: text in, text out, no tokens.

What an endpoint says of the reasoning behind an answer, apart from the answer, is kept: in the
turn's text it stands inside ``<think>`` before the answer, as a model that is served without a
parser of reasoning would have said it. It is not sent back with the history, and is not read when
an action is looked for.

Where the prompt has tools, a request declares them, and a call is an action. What the environment
says to it is sent back as the tool's answer.

The key is read from the environment when a request is made. It is in no option, and no message or
file says it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import reprlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from agentgym.blocks import whole
from agentgym.episodes import sum_usage
from agentgym.errors import ContextOverflow, ServerError, UsageError
from agentgym.policies.action_format import Parsed
from agentgym.policies.prompt import Past, Prompt
from agentgym.policies.server_url import checked_url
from agentgym.policies.tool_calls import as_text, replies, said
from agentgym.types import Usage, View

if TYPE_CHECKING:
    import openai

Told = Mapping[str, Any]
"""A message or a tool, as an endpoint is told it."""

KEY = "OPENAI_API_KEY"
"""The environment variable that the key is read from."""
URL = "OPENAI_BASE_URL"
"""The environment variable of an endpoint that is not named otherwise."""
OPENAI_URL = "https://api.openai.com/v1"

_ATTEMPTS = 8
_LONGEST_PAUSE_S = 60.0
_LONGEST_ASKED_S = 600.0  # that a server may ask to wait
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MILLION = 1_000_000
_MOST_TOKENS = 10**12  # whoever counts more of them does not count


class EndpointOptions(BaseModel):
    """A model of an endpoint, and how it is asked.

    Attributes:
        model: The name that the endpoint knows it by.
        url: Where it is; None takes ``OPENAI_BASE_URL``, or OpenAI's own.
        temperature: Of the sampling.
        max_tokens: The longest turn, reasoning and all.
        request: Further fields of a request, or others in place of those that are sent anyway;
            None leaves a field out, for endpoints that refuse it.
        prices: Of a million prompt tokens and of a million completion tokens; None counts no cost,
            unless the endpoint tells it.
        timeout: Seconds after which a request counts as lost.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    url: str | None = None
    temperature: float = Field(default=0.4, ge=0)
    max_tokens: int = Field(default=2048, ge=1)
    request: dict[str, Any] = {}
    prices: tuple[float, float] | None = None
    timeout: float = Field(default=600.0, gt=0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered."""

    content: str
    reasoning: str | None  # None where the endpoint tells none apart
    usage: Usage
    calls: tuple[object, ...] = ()  # of tools, as they came
    retries: int = 0  # attempts before it that brought nothing


class Endpoint:
    """A chat endpoint. Use it as an asynchronous context manager, or call :meth:`close`.

    Args:
        options: Which model, and how it is asked.
        sleep: How it waits before it asks again, in seconds.

    Attributes:
        url: Where it is.

    Raises:
        UsageError: The URL is none or carries a secret, or OpenAI's own is asked without a key.
    """

    def __init__(
        self,
        options: EndpointOptions,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.options = options
        self.url = (options.url or os.environ.get(URL) or OPENAI_URL).rstrip("/")
        checked_url(self.url, "https://HOST/v1", KEY)
        self._key = os.environ.get(KEY, "")
        if not self._key and self.url == OPENAI_URL:
            raise UsageError(
                f"{OPENAI_URL} wants a key; set the environment variable {KEY}, or name another"
                " endpoint with --base-url"
            )
        self._sleep = sleep
        self._client: openai.AsyncOpenAI | None = None

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def begin(self, prompt: Prompt, session: str) -> ChatEpisode:
        """Start an episode.

        Args:
            prompt: What the model is told.
            session: Names the episode; the seeds that are sent come from it.
        """
        return ChatEpisode(self, prompt, session)

    async def ask(self, messages: Sequence[Told], seed: int, tools: Sequence[Told] = ()) -> Answer:
        """Return the answer to a conversation.

        A lost connection and the statuses 429 and 500 to 599 are tried again, with pauses that
        grow or that the endpoint asks for; any other status is final.

        Args:
            messages: Of the conversation, as the endpoint takes them.
            seed: Of the sampling.
            tools: That may be called, one at a time; likewise.

        Raises:
            ContextOverflow: The conversation is longer than the model reads.
            ServerError: The endpoint said no, or could not be asked in many attempts.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return replace(self._read(await self._send(messages, seed, tools)), retries=attempt)
            except _Later as later:
                if attempt == _ATTEMPTS - 1:
                    raise ServerError(
                        f"{self.url} gave no answer in {_ATTEMPTS} attempts: {later}"
                    ) from later
                pause = min(_LONGEST_PAUSE_S, 2.0**attempt) * random.uniform(0.5, 1.0)
                await self._sleep(pause if later.pause is None else later.pause)
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    # Inside -----------------------------------------------------------------------------------

    async def _send(
        self, messages: Sequence[Told], seed: int, tools: Sequence[Told]
    ) -> Mapping[str, Any]:
        import openai

        fields: dict[str, Any] = {
            "temperature": self.options.temperature,
            "max_tokens": self.options.max_tokens,
            "seed": seed,
            **({"tools": list(tools), "parallel_tool_calls": False} if tools else {}),
            **self.options.request,
        }
        sent = {name: value for name, value in fields.items() if value is not None}
        try:
            answer: Any = await self._open().chat.completions.create(
                model=self.options.model,
                messages=_whole(messages),
                extra_body=sent,
            )
            return answer.model_dump(warnings=False) if isinstance(answer, BaseModel) else {}
        except openai.APIConnectionError as error:
            raise _Later(self._clean(f"{error.message} {error.__cause__ or ''}")) from error
        except openai.APIStatusError as error:
            raise self._refusal(error.status_code, error.message, error.body, error) from error
        except (openai.APIError, ValueError, RecursionError) as error:  # no JSON, or too deep
            raise _Later(self._clean(str(error))) from error

    def _open(self) -> openai.AsyncOpenAI:
        if self._client is None:
            import openai

            # No proxy stands before this machine itself.
            near = urlsplit(self.url).hostname in _LOOPBACK
            self._client = openai.AsyncOpenAI(
                api_key=self._key or "none",
                base_url=self.url,
                max_retries=0,  # what is tried again, and how often, is said here
                timeout=self.options.timeout,
                http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if near else None,
            )
        return self._client

    def _refusal(self, status: int, message: str, body: Any, error: Any) -> Exception:
        """Return what a status other than 200 means."""
        said = self._clean(message)
        if status == 429 or status >= 500:
            headers = error.response.headers if error is not None else {}
            return _Later(f"status {status}: {said}", _retry_after(headers))
        code = body.get("code") if isinstance(body, Mapping) else None
        if code == "context_length_exceeded" or "maximum context length" in said:
            return ContextOverflow(said)
        hint = f"; the key is read from {KEY}" if status in (401, 403) else ""
        return ServerError(f"{self.url} refused, with status {status}: {said}{hint}")

    def _read(self, answer: Mapping[str, Any]) -> Answer:
        error = answer.get("error")
        if isinstance(error, Mapping):  # some endpoints say so with status 200
            code = error.get("code")
            status = code if isinstance(code, int) else 500
            raise self._refusal(status, str(error.get("message")), error, None)
        choices = answer.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        message = first.get("message") if isinstance(first, Mapping) else None
        if not isinstance(message, Mapping):
            raise _Later("the answer has no choices; is this the URL of a chat endpoint?")
        told = [_parts(message.get(name)) for name in ("reasoning", "reasoning_content")]
        calls = message.get("tool_calls") or ()
        return Answer(
            _text(message.get("content")),
            next(filter(None, told), None),
            self._usage(answer.get("usage")),
            tuple(calls) if isinstance(calls, list | tuple) else (calls,),
        )

    def _usage(self, counted: Any) -> Usage:
        counted = counted if isinstance(counted, Mapping) else {}
        prompt, said = (_count(counted.get(f"{of}_tokens")) for of in ("prompt", "completion"))
        cost = counted.get("cost")
        if not isinstance(cost, int | float) or not 0 <= cost <= _MILLION:
            cost = None
        if self.options.prices is not None:
            asked, answered = self.options.prices
            cost = (asked * prompt + answered * said) / _MILLION
        return Usage(
            requests=1,
            prompt_tokens=prompt,
            cached_tokens=_detail(counted, "prompt_tokens_details", "cached_tokens"),
            completion_tokens=said,
            reasoning_tokens=_detail(counted, "completion_tokens_details", "reasoning_tokens"),
            cost=None if cost is None else float(cost),
        )

    def _clean(self, text: str) -> str:
        """Return what an endpoint said, in one line and without the key."""
        line = " ".join(text.split())[:300]
        return line.replace(self._key, "***") if self._key else line


class ChatEpisode:
    """One episode with an endpoint. Make it with :meth:`Endpoint.begin`.

    Attributes:
        faults: Attempts that brought no answer and were made again.
    """

    def __init__(self, endpoint: Endpoint, prompt: Prompt, session: str) -> None:
        self._endpoint, self._prompt, self._session = endpoint, prompt, session
        self._tools = prompt.template.tools()
        self._messages: list[Told] = []
        self._past: list[Past] = []
        self._used: list[Usage] = []
        self.faults = 0

    @property
    def usage(self) -> Usage:
        """What the endpoint counted so far."""
        return sum_usage(self._used) or Usage()

    async def answer(self, view: View) -> Parsed | None:
        """Return the answer to what is seen; None when the conversation has become too long.

        Raises:
            ServerError: See :meth:`Endpoint.ask`.
        """
        self._observe(view)
        digest = hashlib.sha256(f"{self._session}:{view.turn}".encode()).digest()
        try:
            seed = int.from_bytes(digest[:4]) >> 1
            answer = await self._endpoint.ask(self._messages, seed, self._tools)
        except ContextOverflow:
            return None
        self._used.append(answer.usage)
        self.faults += answer.retries
        calls = answer.calls if self._tools else ()
        parsed = self._parse(answer, calls)
        self._past.append(Past(view.observation, parsed.action))
        self._messages.append(said(answer.content, calls))
        return parsed

    def _observe(self, view: View) -> None:
        if self._prompt.context.window is not None:
            self._messages = [*self._prompt.retold(view, self._past)]
        elif not self._messages:
            self._messages = [*self._prompt.opening(view)]
        else:
            self._messages += replies(self._messages[-1], self._prompt.reply(view))

    def _parse(self, answer: Answer, calls: Sequence[object]) -> Parsed:
        text, thought = as_text(answer.content, calls), answer.reasoning
        if thought is None or "<think>" in answer.content:
            return self._prompt.parse(text, calls)
        # The endpoint took the reasoning out of the answer; the format wants it to be there.
        thinks = self._prompt.template.format.name == "tags"
        parsed = self._prompt.parse(f"<think></think>{text}" if thinks else text, calls)
        return parsed._replace(text=f"<think>{thought}</think>{text}")


class _Later(Exception):  # noqa: N818 (what happened)
    """No usable answer came, and the next attempt may bring one."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause  # seconds that the server asks to wait


def _whole(sent: Any) -> Any:
    """Return what is sent with whole characters, in all its strings."""
    if isinstance(sent, str):
        return whole(sent)
    if isinstance(sent, Mapping):
        return {name: _whole(value) for name, value in sent.items()}
    return [_whole(one) for one in sent] if isinstance(sent, list | tuple) else sent


def _retry_after(headers: Mapping[str, str]) -> float | None:
    seconds = headers.get("retry-after", "")
    return min(float(seconds), _LONGEST_ASKED_S) if seconds.isdecimal() else None


def _text(content: Any) -> str:
    """Return the text of an answer; refuse what cannot be one."""
    text = _parts(content)
    if text is None:
        raise _Later(f"the answer's text is {reprlib.repr(content)}")
    return text


def _parts(content: Any) -> str | None:
    """Return a text, which may come in parts, some of which are none; None for what is no text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    texts = [part.get("text") for part in content if isinstance(part, Mapping)]
    return "".join(text for text in texts if isinstance(text, str))


def _detail(counted: Mapping[str, Any], group: str, name: str) -> int:
    details = counted.get(group)
    return _count(details.get(name)) if isinstance(details, Mapping) else 0


def _count(tokens: Any) -> int:
    """Return a number of tokens; 0 for what is none."""
    return int(tokens) if isinstance(tokens, int | float) and 0 <= tokens <= _MOST_TOKENS else 0
