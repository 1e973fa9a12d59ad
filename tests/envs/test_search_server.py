"""The retrieval server, the client, and what happens between them when things go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from agentgym.door import Door
from agentgym.envs.search import SearchEnv
from agentgym.envs.search_corpus import parse_article
from agentgym.envs.search_data import Article
from agentgym.envs.search_index import BM25Index
from agentgym.envs.search_remote import RemoteRetriever
from agentgym.envs.search_retrieval import Hit, LocalRetriever
from agentgym.envs.search_server import RetrievalServer
from agentgym.errors import DataError, EnvFault, UsageError

ARTICLES = tuple(
    Article(str(n), f"Town {n}", f"A town with {n} towers and a harbour.") for n in range(20)
)
LOCAL = LocalRetriever(ARTICLES, BM25Index.build(one.contents for one in ARTICLES))


class Down:
    """A retriever that always fails."""

    def search(self, query: str, k: int) -> tuple[Hit, ...]:
        raise EnvFault("the disk is gone")

    def search_all(self, queries: Sequence[str], k: int) -> tuple[tuple[Hit, ...], ...]:
        return tuple(self.search(query, k) for query in queries)


@contextmanager
def running(server: HTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(RetrievalServer(LOCAL)) as url:
        yield url


@contextmanager
def answering(*answers: tuple[int, str]) -> Iterator[tuple[str, list[dict]]]:
    """Run a server that gives these answers in turn, the last for ever; yield what it is asked."""
    asked: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, body = answers[min(len(asked), len(answers)) - 1]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url, asked


OPENED: list[RemoteRetriever] = []


def impatient(url: str, **options) -> RemoteRetriever:
    settings = {"tries": 3, "timeout_s": 5, "first_wait_s": 0.001, **options}
    OPENED.append(RemoteRetriever(url, **settings))
    return OPENED[-1]


@pytest.fixture(autouse=True)
def close_connections() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def post(url: str, body: bytes) -> tuple[int, dict]:
    request = urllib.request.Request(url, body)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


GOOD = json.dumps({"result": [[{"document": {"id": 7, "contents": '"T"\nx'}, "score": 2}]]})


@pytest.mark.parametrize("ending", ["", "/", "/retrieve", "/retrieve/"])
def test_a_server_finds_what_its_corpus_finds(address, ending):
    for query in ("7 towers", "harbour", "elephant"):
        assert impatient(address + ending).search(query, 5) == LOCAL.search(query, 5)


def test_several_queries_bring_one_list_each_and_documents_alone_without_scores(address):
    ask = {"queries": ["town 3", "elephant"], "topk": 2}
    status, answer = post(f"{address}/retrieve", json.dumps(ask).encode())
    assert status == 200
    (first, second) = answer["result"]
    assert (len(first), second) == (2, [])
    assert first[0] == {
        "id": "3",
        "title": "Town 3",
        "text": "A town with 3 towers and a harbour.",
        "contents": '"Town 3"\nA town with 3 towers and a harbour.',
    }
    ask["return_scores"] = True
    _, answer = post(f"{address}/retrieve", json.dumps(ask).encode())
    assert answer["result"][0][0]["document"] == first[0]
    assert answer["result"][0][0]["score"] > 0


def test_three_results_come_where_nobody_asks_for_a_number(address):
    for ask in ({"queries": ["harbour"]}, {"queries": ["harbour"], "topk": None}):
        _, answer = post(f"{address}/retrieve", json.dumps(ask).encode())
        assert len(answer["result"][0]) == 3


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "no JSON"),
        (b"[]", "expected"),
        (b'{"queries": "harbour"}', "expected"),
        (b'{"queries": [1]}', "expected"),
        (b'{"queries": ["x"], "topk": 0}', "topk is 0, expected 1 to 100"),
        (b'{"queries": ["x"], "topk": "3"}', "topk is '3'"),
        (b'{"queries": ["x"], "topk": true}', "topk is True"),
        (json.dumps({"queries": ["x"] * 257}).encode(), "there are 257 queries, expected 256"),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(address, body, reason):
    status, answer = post(f"{address}/retrieve", body)
    assert status == 400
    assert reason in answer["error"]


def test_another_path_is_refused(address):
    assert post(f"{address}/other", b"{}")[0] == 404


@pytest.mark.parametrize("size", [str((1 << 20) + 1), "-1", "many", None])
def test_a_huge_request_or_one_of_unknown_size_is_refused_before_it_is_read(address, size):
    with closing(HTTPConnection(address.removeprefix("http://"), timeout=10)) as connection:
        connection.putrequest("POST", "/retrieve")
        if size is not None:
            connection.putheader("Content-Length", size)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413
        assert "send 1 to 1048576 bytes" in json.loads(answer.read())["error"]


def test_a_failure_behind_the_server_is_told_as_one_and_raised_by_the_client():
    with running(RetrievalServer(Down())) as url:
        assert post(f"{url}/retrieve", b'{"queries": ["x"]}') == (
            500,
            {"error": "the disk is gone"},
        )
        with pytest.raises(EnvFault, match=r"answers 500 .*the disk is gone.* \(3 tries\)"):
            impatient(url).search("x", 3)


def test_a_port_that_is_taken_is_one_clear_line(address):
    port = int(address.rpartition(":")[2])
    with pytest.raises(DataError, match=rf"cannot listen on 127.0.0.1:{port}.*--port"):
        RetrievalServer(LOCAL, Door(port=port))


def test_a_server_for_other_machines_answers_who_has_the_token_alone(monkeypatch):
    with running(RetrievalServer(LOCAL, Door("0.0.0.0", token="a secret of mine"))) as url:
        body = json.dumps({"queries": ["harbour"]}).encode()
        assert post(f"{url}/retrieve", body)[0] == 401
        with pytest.raises(EnvFault, match="401 Unauthorized"):
            impatient(url).search("harbour", 3)
        monkeypatch.setenv("AGENTGYM_TOKEN", "a secret of mine")
        assert impatient(url).search("harbour", 3) == LOCAL.search("harbour", 3)


def test_another_sites_name_for_this_machine_is_refused(address):
    with closing(HTTPConnection(address.removeprefix("http://"), timeout=10)) as connection:
        connection.request("POST", "/retrieve", b"{}", {"Host": "evil.example"})
        assert connection.getresponse().status == 403


@pytest.mark.parametrize(
    ("host", "why"), [("there.example", "carries a password"), ("h:abc", "got 'h:abc'")]
)
def test_an_address_with_a_password_is_refused_without_telling_it(host, why):
    with pytest.raises(UsageError, match=why) as refused:
        RemoteRetriever(f"http://me:hunter2@{host}")
    assert "hunter2" not in str(refused.value)


def test_an_answer_is_sent_in_one_piece(address):
    """On a kept connection a second piece would wait 40 ms for the first to be acknowledged."""
    host, port = address.removeprefix("http://").split(":")
    body = b'{"queries": ["harbour"]}'
    head = f"POST /retrieve HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        assert connection.recv(1 << 16).endswith(b"}]]}")


class Counting(RetrievalServer):
    """Counts connections."""

    connections = 0

    def get_request(self):
        self.connections += 1
        return super().get_request()


def test_a_connection_is_kept_from_search_to_search_and_opened_anew_where_it_was_lost():
    with running(server := Counting(LOCAL)) as url:
        retriever = impatient(url)
        for query in ("harbour", "7 towers", "elephant"):
            assert retriever.search(query, 3) == LOCAL.search(query, 3)
        assert server.connections == 1
        retriever.close()
        assert retriever.search("harbour", 3) == LOCAL.search("harbour", 3)
        assert server.connections == 2
        port = server.server_address[1]
    with running(Counting(LOCAL, Door(port=port))):  # the server was started again
        assert retriever.search("harbour", 3) == LOCAL.search("harbour", 3)


def test_an_environment_that_is_closed_has_closed_its_connection(tmp_path: Path):
    (tmp_path / "questions.jsonl").write_text('{"question": "Who?", "answer": "Nobody"}')
    with running(Counting(LOCAL)) as url:
        env = SearchEnv("search/folder", data=str(tmp_path), retriever=url)
        env.reset(seed=0)
        assert "Town" in env.step("<search>harbour</search>")[0]
        env.close()
        env.close()
        assert env._remote is not None
        assert env._remote._client is None


def test_a_server_error_that_passes_is_tried_again():
    with answering((500, "oops"), (503, "<html>wait</html>"), (200, GOOD)) as (url, asked):
        assert impatient(url).search("who?", 4) == (Hit(Article("7", "T", "x"), 2.0),)
    assert asked == [{"queries": ["who?"], "topk": 4, "return_scores": True}] * 3


def test_a_server_error_that_stays_is_an_error_and_no_empty_result():
    with answering((500, "<html><body>Internal\nError</body></html>")) as (url, asked):
        with pytest.raises(EnvFault, match=r"answers 500 .*Internal Error") as caught:
            impatient(url).search("x", 3)
        assert "\n" not in str(caught.value)
        assert len(asked) == 3


def test_a_request_that_is_refused_is_not_sent_again():
    with answering((404, "nothing here")) as (url, asked):
        with pytest.raises(EnvFault, match=r"answers 404 .*nothing here.*see its own log"):
            impatient(url).search("x", 3)
        assert len(asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        "<html><body>Sign in</body></html>",
        "[]",
        "null",
        '{"result": []}',
        '{"result": [[], []]}',
        '{"result": [["x"]]}',
        '{"result": [""]}',
        '{"result": {"": []}}',
        '{"result": [[{"document": {"id": "1"}, "score": 1}]]}',
        '{"result": [[{"document": {"contents": 3}, "score": 1}]]}',
        '{"result": [[{"document": {"contents": "x"}, "score": null}]]}',
        "[" * 100_000,
    ],
)
def test_an_answer_that_is_no_result_says_what_came_and_what_was_expected(body):
    with answering((200, body)) as (url, asked):
        with pytest.raises(EnvFault, match=r"sent .*, expected .*is it a server that speaks"):
            impatient(url).search("x", 3)
        assert len(asked) == 1


def test_documents_without_scores_are_read_too():
    with answering((200, '{"result": [[{"id": "1", "contents": "x"}]]}')) as (url, _):
        assert impatient(url).search("x", 3) == (Hit(Article("1", "", "x"), 0.0),)


def test_no_server_and_a_silent_server_are_errors():
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # listens, never answers
    url = f"http://127.0.0.1:{server.server_address[1]}"
    with pytest.raises(EnvFault, match=r"does not answer: timed out \(2 tries\)"):
        impatient(url, tries=2, timeout_s=0.05).search("x", 3)
    server.server_close()
    with pytest.raises(EnvFault, match=r"cannot be reached: .*refused \(3 tries\); start it"):
        impatient(url).search("x", 3)


def test_a_server_on_this_machine_is_asked_without_the_proxy(address, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    assert impatient(address).search("harbour", 2) == LOCAL.search("harbour", 2)


def test_what_was_found_once_is_not_asked_again(tmp_path: Path):
    file = str(tmp_path / "new" / "cache.sqlite")
    with answering((200, GOOD)) as (url, asked):
        first = impatient(url, cache=file).search("x", 3)
        assert impatient(url, cache=file).search("x", 3) == first
        assert len(asked) == 1
        impatient(url, cache=file).search("x", 4)
        impatient(url, cache=file).search("X", 3)
        assert len(asked) == 3
    assert impatient(url, cache=file).search("x", 3) == first  # the server is gone


def test_several_queries_are_one_request_and_each_is_kept_by_itself(tmp_path: Path):
    def hits(*names: str) -> dict[str, object]:
        return {"result": [[{"document": {"id": n, "contents": n}, "score": 1}] for n in names]}

    file = str(tmp_path / "cache.sqlite")
    with answering((200, json.dumps(hits("a", "b"))), (200, json.dumps(hits("c")))) as (url, asked):
        retriever = impatient(url, cache=file)
        retriever.search_all(["A", "B", "A"], 3)
        found = retriever.search_all(["B", "C", "A"], 3)
        assert [one.article.id for (one,) in found] == ["b", "c", "a"]
    assert [one["queries"] for one in asked] == [["A", "B"], ["C"]]


def test_of_what_a_server_sends_too_many_the_best_are_taken():
    many = {"result": [[{"document": {"id": str(n), "contents": "x"}} for n in range(5)]]}
    with answering((200, json.dumps(many))) as (url, _):
        assert [one.article.id for one in impatient(url).search("x", 2)] == ["0", "1"]


@contextmanager
def dribbling(part: bytes, pause_s: float) -> Iterator[str]:
    """Run a server whose answer has no end."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # until nobody listens
                while True:
                    self.wfile.write(part)
                    time.sleep(pause_s)

        def log_message(self, *args: object) -> None:
            pass

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url


def test_an_answer_without_end_is_given_up_by_its_length_or_its_time():
    with dribbling(b" ", 0.02) as url, pytest.raises(EnvFault, match=r"for longer than 0.2 sec"):
        impatient(url, timeout_s=0.2).search("x", 3)
    with (
        dribbling(b" " * (1 << 20), 0) as url,
        pytest.raises(EnvFault, match="more than 8,388,608"),
    ):
        impatient(url).search("x", 3)


def test_half_a_character_in_an_article_is_shown_and_sent_as_a_question_mark(tmp_path: Path):
    line = '{"id": "1", "title": "a \\ud83d", "text": "harbour \\ud83d"}'
    articles = (parse_article(line, "corpus, line 1"),)
    local = LocalRetriever(articles, BM25Index.build(one.contents for one in articles))
    with running(RetrievalServer(local)) as url:
        assert impatient(url).search("harbour", 3)[0].article == Article("1", "a ?", "harbour ?")


def test_no_failure_is_kept(tmp_path: Path):
    file = str(tmp_path / "cache.sqlite")
    with answering((200, "<html>"), (200, GOOD)) as (url, _):
        with pytest.raises(EnvFault):
            impatient(url, cache=file).search("x", 3)
        assert len(impatient(url, cache=file).search("x", 3)) == 1


def test_a_cache_that_is_something_else_is_one_clear_line(tmp_path: Path):
    path = tmp_path / "cache.sqlite"
    path.write_text("no database at all, but some text that is long enough" * 10)
    with pytest.raises(DataError, match=r"cannot open the cache .*name another file, or delete it"):
        impatient("http://127.0.0.1:1", cache=str(path))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://x",
        "http://",
        "file:///etc/passwd",
        "http://[",
        "http://h:abc",
        "http://h:99999",
        "http://:80",
        "http://h:80\n",
        "http://two words",
    ],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(UsageError, match="address of a server"):
        RemoteRetriever(url)


def test_the_client_is_done_before_a_workers_step_may_time_out():
    retriever: Callable[..., RemoteRetriever] = RemoteRetriever
    one = retriever("http://127.0.0.1:1")
    waits = sum(one._first_wait_s * 2**n for n in range(one._tries - 1))
    assert one._tries * one._timeout_s + waits < 60


def test_the_command_serves_a_corpus_until_it_is_interrupted(tmp_path: Path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "1", "contents": "a harbour"}')
    command = [sys.executable, "-u", "-m", "agentgym", "envs", "serve", "search"]
    command += ["--corpus", str(corpus), "--port", "0"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        address = re.search(r"1 articles at (http://127\.0\.0\.1:\d+/retrieve)", said)
        assert address is not None, said
        try:
            assert impatient(address[1]).search("harbour", 3)[0].article.id == "1"
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) != 0
