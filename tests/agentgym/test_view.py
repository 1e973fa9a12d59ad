"""The page of a run: what it is told, what it may do, and who may ask for it."""

import base64
import gzip
import hashlib
import io
import json
import math
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from agentgym import view_data
from agentgym.door import Door
from agentgym.errors import DataError, UsageError
from agentgym.run_files import Source, open_run
from agentgym.view import ViewServer, embeddable, export, page
from agentgym.view_data import COLUMNS, Place, Reader, embedded, page_data
from agentgym.view_terminal import show_run

MakeRun = Callable[..., Path]
EVIL = "</script><script>document.title='gone'</script><img src=x onerror=alert(1)>"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def rows_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in told["rows"]]


def told_by(html: str) -> Any:
    """Return what a page was told, as its script reads it."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    return json.loads(text)


# What the page is told ----------------------------------------------------------------------------


def test_a_row_tells_what_the_list_filters_by(make_run: MakeRun) -> None:
    rows = rows_of(Reader([open_run(make_run())]).rows())
    assert len(rows) == 16  # eight of the evaluation, eight of training
    second = next(row for row in rows if row["source"] == "train/2" and row["line"] == 2)
    assert (second["unparsed"], second["inadmissible"]) == (1, 1)
    assert (second["won"], second["stop"], second["turns"]) == (False, "turns", 3)
    branch = next(row for row in rows if row["branch"])
    assert (branch["parent"], branch["shared"]) == ([0, 0], 1)
    fourth = next(row for row in rows if row["source"] == "train/2" and row["line"] == 4)
    assert (fourth["unparsed"], fourth["inadmissible"], fourth["repeated"]) == (0, 1, 1)
    assert [row["tokens"] for row in rows if row["source"] == "train/2"] == [True] * 4 + [False] * 4


def test_a_trajectory_has_the_tokens_that_were_sampled_by_turn(make_run: MakeRun) -> None:
    told = Reader([open_run(make_run())]).trajectory(Place(0, "train/2", 1))
    assert ["".join(token["text"] for token in turn) for turn in told["tokens"]] == [
        turn["text"] for turn in told["turns"]
    ]
    # The third token of a row is the first that is sampled: 0.2 x 2 nats, -0.1 x 2, -0.11 x 2.
    first = told["tokens"][0][0]
    assert (first["entropy"], first["behaviour_logprob"]) == (0.4, -0.2)
    assert first["logprob"] == pytest.approx(-0.22)
    assert Reader([open_run(make_run("b"))]).trajectory(Place(0, "eval/0", 1))["tokens"] is None


@pytest.mark.parametrize(
    "place", [Place(0, "train/3", 1), Place(1, "train/2", 1), Place(0, "train/2", 99),
              Place(0, "train/2", 0), Place(0, "../config.toml", 1)], ids=str,
)  # fmt: skip
def test_a_trajectory_that_is_not_there_is_refused(make_run: MakeRun, place: Place) -> None:
    with pytest.raises(DataError):
        Reader([open_run(make_run())]).trajectory(place)


def test_numbers_that_json_cannot_write_are_left_out(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "reward/mean": NaN, "time/generate": Infinity}\n')
    told = json.loads(embeddable(page_data([open_run(folder)])))
    assert [step for step, _ in told["runs"][0]["metrics"]["reward/mean"]] == [1, 2, 3]


@pytest.mark.parametrize(
    "foreign",
    [{"rows": [{"ids": [1], "turn": ["x", None, 0.5]}, {"turn": 3}, 4]}, {"parent": [math.nan, 1]},
     {"parent": ["a", []]}, {"score": math.nan, "return": 10**400, "goal": 3, "task_type": []}],
    ids=str,
)  # fmt: skip
def test_what_is_foreign_in_a_trajectory_is_left_out(
    make_run: MakeRun, tmp_path: Path, foreign: dict[str, Any]
) -> None:
    folder = make_run()
    path = folder / "trajectories" / "step_000002.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    changed = json.dumps(json.loads(lines[0]) | foreign)
    path.write_bytes(gzip.compress("\n".join([changed, *lines[1:]]).encode()))
    assert export([open_run(folder)], tmp_path / "report.html", 100).carried == 16
    told = told_by((tmp_path / "report.html").read_text())
    row = next(row for row in rows_of(told["rows"]) if row["source"] == "train/2")
    assert (row["parent"], row["task"]) == (None, "task-00000")


def test_a_configuration_is_told_by_dotted_names_dates_included(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "config.toml").open("a") as stream:
        stream.write("begun = 2026-11-21\nrate = nan\n[method.more]\nsizes = [1, 2]\n")
    told = json.loads(embeddable(page_data([open_run(folder)])))["runs"][0]["config"]
    assert told == {
        "seed": 0, "steps": 3, "env.suite": "corridor/train", "method.name": "epo",
        "method.begun": "2026-11-21", "method.rate": None, "method.more.sizes": [1, 2],
    }  # fmt: skip


def test_an_exported_page_carries_whole_trajectories_in_equal_shares(make_run: MakeRun) -> None:
    reader = Reader([open_run(make_run(trajectories=20))])
    carried = embedded(reader, 12)  # of 8 of the evaluation and 20 of training
    sources = [row["source"] for row in rows_of(carried["rows"])]
    assert (sources.count("eval/0"), sources.count("train/2")) == (6, 6)
    assert carried["rows"]["left_out"] == 16
    assert set(carried["trajectories"]) == {
        f"{row['run']} {row['source']} {row['line']}" for row in rows_of(carried["rows"])
    }
    assert len(embedded(reader, 25)["trajectories"]) == 25  # 8 and 17: none of the room is lost


# What the page may do -----------------------------------------------------------------------------


def test_what_a_model_said_cannot_end_the_element_that_holds_it(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = open_run(make_run(say=EVIL))
    export([run], tmp_path / "report.html", 100)
    html = (tmp_path / "report.html").read_text()
    assert "<img" not in html
    assert html.count("</script>") == 2  # of the data and of the script
    assert told_by(html)["trajectories"]["0 train/2 1"]["turns"][0]["action"] == EVIL


def test_an_exported_page_is_written_and_what_it_could_not_read_is_said(
    agentgym: Any, make_run: MakeRun, tmp_path: Path
) -> None:
    folder = make_run()
    path = folder / "trajectories" / "step_000002.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-40])
    code, out, err = agentgym("view", folder, "--export", tmp_path / "report.html")
    assert code == 0
    assert f"agentgym: {path}: cut off after" in err
    assert "written: " in out


def test_text_that_looks_like_a_place_of_the_page_stays_text(make_run: MakeRun) -> None:
    run = open_run(make_run(say="@script@ @data@"))
    told = page_data([run]) | embedded(Reader([run]), 1)
    assert told_by(page(told, served=False)) == json.loads(json.dumps(told))


def test_the_policy_of_the_page_lets_its_own_script_and_style_alone(make_run: MakeRun) -> None:
    told = page_data([open_run(make_run())])
    for served, connect in ((True, "'self'"), (False, "'none'")):
        html = page(told, served=served)
        (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert (rules["default-src"], rules["connect-src"]) == ("'none'", connect)
        for tag in ("script", "style"):
            (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
            digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
            assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_page_names_nothing_outside_itself(make_run: MakeRun) -> None:
    html = page(page_data([open_run(make_run())]), served=False)
    addresses = set(re.findall(r"https?://[^\"'\s)]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a format
    assert not re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", html)
    assert not re.findall(r"@import|url\(|<link|<img|src=", html)


# Who may ask --------------------------------------------------------------------------------------


@contextmanager
def serving(folder: Path, door: Door | None = None) -> Iterator[ViewServer]:
    with ViewServer([folder], door) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def server(make_run: MakeRun) -> Iterator[ViewServer]:
    with serving(make_run()) as running:
        yield running


def get(server: ViewServer, path: str, host: str | None = None, method: str = "GET") -> Any:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def test_the_server_answers_with_the_page_its_rows_and_a_trajectory(server: ViewServer) -> None:
    answer, html = get(server, "/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert told_by(html)["runs"][0]["title"] == "epo on corridor/train, seed 0"
    _, rows = get(server, "/rows")
    assert len(json.loads(rows)["rows"]) == 16
    _, one = get(server, "/trajectory?run=0&source=train/2&line=1")
    assert json.loads(one)["task"] == "task-00000"


def test_the_server_listens_on_the_loopback_address_alone(server: ViewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


@pytest.mark.parametrize(
    "path",
    ["/config.toml", "/metrics.jsonl", "/../config.toml", "/%2e%2e/config.toml", "//etc/passwd",
     "/trajectory?run=0&source=../../config.toml&line=1", "/trajectory?run=0&source=train/2&line=x",
     "/trajectory?run=-1&source=train/2&line=1", "/trajectory", "/trajectory?run=0&source=train/2",
     "/trajectory?run=0&source=train/2&line=99999999999999999999999"],
)  # fmt: skip
def test_nothing_but_what_was_read_of_the_run_is_served(server: ViewServer, path: str) -> None:
    answer, text = get(server, path)
    assert answer.status == 404
    assert "corridor" not in text


def test_a_page_of_another_name_gets_nothing(server: ViewServer) -> None:
    answer, text = get(server, "/rows", host=f"evil.example:{server.server_port}")
    assert answer.status == 403
    assert "task" not in text
    assert get(server, "/rows", host=f"localhost:{server.server_port}")[0].status == 200


def test_a_page_for_other_machines_is_for_who_has_the_token_alone(make_run: MakeRun) -> None:
    with serving(make_run(), Door("0.0.0.0", token="a secret of mine")) as server:
        connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        statuses = []
        for given in (
            {},
            {"Authorization": "Bearer another"},
            {"Authorization": "Bearer a secret of mine"},
        ):
            connection.request("GET", "/rows", headers=given)
            answer = connection.getresponse()
            statuses.append(answer.status)
            assert (b"task" in answer.read()) == (answer.status == 200)
        connection.close()
    assert statuses == [401, 401, 200]


def test_the_server_changes_nothing(server: ViewServer) -> None:
    assert get(server, "/", method="POST")[0].status == 501


def test_what_is_no_address_is_refused(server: ViewServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as client:
        client.sendall(b"GET http://[ HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        said = client.makefile("rb").read()
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"this is no address" in said


def test_a_page_that_does_not_wait_for_its_answer_is_passed_over_in_silence(
    server: ViewServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over = Event()
    monkeypatch.setattr(server, "shutdown_request", lambda request: (request.close(), over.set()))
    client = socket.create_connection(("127.0.0.1", server.server_port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sendall(b"GET / HTTP/1.1\r\nHost")
    client.close()  # by a reset
    assert over.wait(10)
    assert capsys.readouterr() == ("", "")


def test_what_goes_wrong_with_a_request_is_said(
    server: ViewServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("broken on purpose")

    monkeypatch.setattr(server, "answer", broken)
    with pytest.raises(RemoteDisconnected):
        get(server, "/")
    assert "broken on purpose" in capsys.readouterr().err


def test_a_run_that_goes_on_is_read_again_when_the_page_is_loaded(server: ViewServer) -> None:
    with (server.folders[0] / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "reward/mean": 7}\n')
    assert told_by(get(server, "/")[1])["runs"][0]["metrics"]["reward/mean"][-1] == [4, 7]


def test_files_that_did_not_change_are_read_once(
    server: ViewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = view_data.trajectories

    def trajectories(source: Source, problems: list[str]) -> Any:
        read.append(source.name)
        return real(source, problems)

    monkeypatch.setattr(view_data, "trajectories", trajectories)
    first = get(server, "/rows")[1]
    get(server, "/")
    assert get(server, "/rows")[1] == first
    assert read == ["eval/0", "train/2"]
    folder = server.folders[0] / "trajectories"
    (folder / "step_000003.jsonl.gz").write_bytes((folder / "step_000002.jsonl.gz").read_bytes())
    (folder / "step_000002.jsonl.gz").write_bytes(b"no gzip")
    get(server, "/")
    told = json.loads(get(server, "/rows")[1])
    assert read[2:] == ["train/2", "train/3"]
    assert (len(told["rows"]), len(told["problems"])) == (16, 1)


def test_a_port_that_is_taken_is_one_line(make_run: MakeRun) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}.*--port"):
            ViewServer([make_run()], Door(port=port))


# The command --------------------------------------------------------------------------------------


def test_the_command_exports_and_says_what_it_left_out(
    agentgym: Any, make_run: MakeRun, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "report.html"
    code, said, _ = agentgym("view", make_run(), make_run(seed=1), "--export", out, "--limit", 20)
    assert (code, said) == (
        0, f"written: {out}, with 20 trajectories; 12 more are left out, --limit raises it\n",
    )  # fmt: skip
    assert len(told_by(out.read_text())["runs"]) == 2


def test_the_terminal_shows_curves_and_trajectories(agentgym: Any, make_run: MakeRun) -> None:
    folder = make_run(say="\x1b[2J[bold]")
    code, out, err = agentgym("view", folder, "--terminal")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert lines["Reward"].split() == ["Reward", "▁▄█", "1", "3", "1", "3"]  # first to highest
    assert "training after step 2: 4 of 8 won; stops: terminated 4, turns 4" in out
    assert "of 24 turns 2 were off the format, 4 had an action that the environment" in out
    assert "and 2 repeated the action before" in out


@pytest.mark.parametrize("columns", [80, 100])
def test_a_narrow_terminal_shows_each_curve_in_one_line(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    folder = make_run()
    names = ("episode/pick_two_obj_and_place_far_away/success_rate", "episode/look/success_rate")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    told = [json.loads(line) | dict.fromkeys(names, -1.234e-5 * n) for n, line in enumerate(lines)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    show_run(open_run(folder))
    text = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    curves, _, episodes = text.partition("evaluation after step 0")
    said = [line.split() for line in curves.splitlines()[4:] if line.strip()]
    assert [line for line in said if re.fullmatch("[▁▂▃▄▅▆▇█]+", line[-1])] == []
    shown = {" ".join(w for w in line if not re.match(r"[▁▂▃▄▅▆▇█\d-]", w)): line for line in said}
    assert list(shown) == [
        "Success", "training", "held out, corridor/test", "Reward", "Success by task type", "look",
        "…k two obj and place far away", "Entropy", "Time",
    ]  # fmt: skip
    assert shown["look"][:4] == ["look", "█▄▁", "-0", "-2.468e-05"]
    assert len(shown["look"]) == (5 if columns == 80 else 6)
    rows = [line for line in episodes.splitlines() if line.lstrip().startswith("task-")]
    assert len(rows) == 16
    assert all(re.search(r"(won|lost \(turns\)) +3 ", row) for row in rows)
    assert max(len(line) for line in text.splitlines() if line.startswith(" ")) <= columns


def test_the_terminal_shows_an_evaluation_by_itself(agentgym: Any, make_run: MakeRun) -> None:
    code, out, err = agentgym("view", make_run() / "eval" / "step_000000", "--terminal")
    assert (code, err) == (0, "")
    assert "evaluation: 4 of 8 won; stops: terminated 4, turns 4" in out


def test_a_folder_is_no_name_for_the_exported_file(
    agentgym: Any, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = agentgym("view", make_run(), "--export", ".")
    assert (code, err) == (
        2, "agentgym: . is a folder; expected the name of a file, as report.html\n",
    )  # fmt: skip


def test_the_terminal_and_a_file_are_not_asked_for_at_once(agentgym: Any, tmp_path: Path) -> None:
    code, _, err = agentgym("view", tmp_path, "--terminal", "--export", "x.html")
    assert code == 2
    assert "choose one" in err
