"""The page of a run in a real browser: what it shows, what it escapes, how much it bears.

Run by ``make test-browser``; needs playwright and a Chromium, which is found on the path.
"""

import gzip
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agentgym.run_files import open_run
from agentgym.view import ViewServer, export

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]

MakeRun = Callable[..., Path]
EVIL = "<script>document.title='gone'</script><img src=x onerror=\"document.title='gone'\">"
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--no-first-run")  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield running
        running.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A page whose errors fail the test, and which may ask nobody but this machine."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
    page.on("request", lambda request: wrong.append(request.url)
            if not request.url.startswith(("http://127.0.0.1", "file:")) else None)  # fmt: skip
    yield page
    page.close()
    assert wrong == []


Show = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    running: list[tuple[ViewServer, Thread]] = []

    def start(*folders: Path) -> str:
        server = ViewServer(folders)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server.url

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def goto(tab: Any, url: str, hash_: str) -> None:
    tab.goto(f"{url}#{hash_}")
    tab.wait_for_function(
        "h => document.getElementById('main').dataset.shown === '#' + h", arg=hash_
    )


def test_curves_are_drawn_and_read_off(tab: Any, serve: Show, make_run: MakeRun) -> None:
    goto(tab, serve(make_run()), "curves")
    titles = tab.locator(".chart h3").all_inner_texts()
    assert titles[:2] == ["Success, share of episodes", "Reward, return of an episode"]
    chart = tab.locator(".chart", has_text="Reward")
    assert chart.locator("circle").count() == 3
    chart.locator("svg").hover()  # its middle is at step 2
    assert chart.locator(".reading").inner_text() == "step 2: 2"
    assert tab.locator(".heat canvas").get_attribute("width") == "3"
    assert tab.locator(".heat canvas").get_attribute("height") == "2"


def test_the_list_filters(tab: Any, serve: Show, make_run: MakeRun) -> None:
    goto(tab, serve(make_run()), "trajectories")
    count = tab.locator("#count")
    assert count.inner_text() == "16 of 16"
    tab.get_by_label("where").select_option("train/2")
    assert count.inner_text() == "8 of 16"
    tab.get_by_label("result").select_option("1")
    assert count.inner_text() == "4 of 16"
    tab.get_by_label("result").select_option("")
    for what in ("off the format", "unknown action"):
        tab.get_by_label(what).check()
        assert count.inner_text() == ("2 of 16" if what == "off the format" else "4 of 16")
        tab.get_by_label(what).uncheck()
    tab.get_by_label("repeated action").check()
    assert count.inner_text() == "2 of 16"
    tab.get_by_label("repeated action").uncheck()
    tab.get_by_label("type").select_option("three rooms")
    assert count.inner_text() == "4 of 16"
    tab.get_by_label("type").select_option("")
    tab.get_by_label("stop").select_option("turns")
    tab.get_by_label("Task or goal").fill("task-00001")
    assert count.inner_text() == "2 of 16"


def test_a_column_sorts_upwards_downwards_and_not(tab: Any, serve: Show, make_run: MakeRun) -> None:
    goto(tab, serve(make_run()), "trajectories")
    first = tab.locator(".row.item").first
    seen = []
    for _ in range(3):
        tab.get_by_role("columnheader", name="Task").locator("button").click()
        seen.append(first.locator("span").nth(2).inner_text())
    assert seen == ["task-00000", "task-00001", "task-00000"]


def test_tokens_are_coloured_by_what_is_chosen(tab: Any, serve: Show, make_run: MakeRun) -> None:
    goto(tab, serve(make_run()), "t/0/train%2F2/1")
    token = tab.locator(".turn").first.locator(".token").nth(1)
    assert token.inner_text().strip() == "think."
    # 0.5 - 0.25 x 3 = -0.25; the largest is 0.5 - 0.25 x 4 = -0.5: half of it, 0.3 of 0.6.
    assert "rgba(213, 94, 0, 0.3)" in token.evaluate("t => getComputedStyle(t).background")
    assert "advantage: -0.25" in token.get_attribute("title")
    tab.get_by_label("colour by").select_option("entropy")
    # 0.2 x 3 of 0.2 x 4: three quarters of 0.6.
    assert "rgba(128, 70, 190, 0.45)" in token.evaluate("t => getComputedStyle(t).background")
    tab.get_by_label("colour by").select_option("ratio")
    # log-ratios are -0.01 x 3 and -0.01 x 4.
    assert "rgba(213, 94, 0, 0.45)" in token.evaluate("t => getComputedStyle(t).background")
    tab.get_by_label("colour by").select_option("")
    assert "rgba(0, 0, 0, 0)" in token.evaluate("t => getComputedStyle(t).background")


def test_a_group_is_a_tree_and_stands_side_by_side(
    tab: Any, serve: Show, make_run: MakeRun
) -> None:
    goto(tab, serve(make_run()), "t/0/train%2F2/1")
    lanes = tab.locator(".group .pick")
    # The branch, 2.1, stands below the episode that it left after a turn.
    assert [lane.get_attribute("aria-label").split(",")[0] for lane in lanes.all()] == [
        "episode 0", "episode 2.1", "episode 1", "episode 3",
    ]  # fmt: skip
    assert "branches off at 1" in lanes.nth(1).text_content()
    tab.get_by_role("button", name="group side by side (4)").click()
    tab.wait_for_selector(".column:nth-child(4)")
    assert tab.locator(".column").count() == 4
    assert tab.locator(".turn.shared").count() == 1
    lanes.nth(2).click()
    tab.wait_for_url("**#t/0/train%2F2/2")
    tab.get_by_text("off the format: no <action> tag").first.wait_for()


def test_the_words_of_a_lost_branch_fit_into_the_tree(
    tab: Any, serve: Show, make_run: MakeRun
) -> None:
    folder = make_run()
    path = folder / "trajectories" / "step_000002.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"true", b"false")))
    goto(tab, serve(folder), "t/0/train%2F2/1")
    words = tab.locator(".group .pick text", has_text="lost (terminated), 3 turns, branches off")
    assert words.evaluate("t => { const b = t.getBBox(); return b.x + b.width }") <= (
        tab.locator(".group svg").evaluate("s => s.width.baseVal.value")
    )


def test_two_runs_stand_side_by_side_on_the_same_task(
    tab: Any, serve: Show, make_run: MakeRun
) -> None:
    goto(tab, serve(make_run(), make_run(seed=1, say="jump")), "compare")
    assert tab.locator(".column").count() == 2
    assert tab.get_by_label("left").input_value() == "0 eval/0"
    assert tab.get_by_label("right").input_value() == "1 eval/0"
    assert tab.locator(".turn.differs .number").all_inner_texts()[0].startswith("turn 0")
    assert tab.locator(".turn.differs").count() == 2
    tab.get_by_label("tasks", exact=True).select_option("parted")
    tab.get_by_text("No task is in both like that.").wait_for()


def test_two_evaluations_stand_side_by_side(tab: Any, serve: Show, make_run: MakeRun) -> None:
    folders = [make_run(name) / "eval" / "step_000000" for name in ("a", "b")]
    url = serve(*folders)
    goto(tab, url, "")
    assert tab.locator("nav a[aria-current]").inner_text() == "Trajectories"
    assert tab.locator("#count").inner_text() == "16 of 16"
    goto(tab, url, "compare")
    assert tab.get_by_label("left").input_value() == "0 eval"
    assert tab.get_by_label("right").input_value() == "1 eval"
    assert "a-0/eval/step_000000, evaluation" in tab.locator(".column h3").first.inner_text()


def test_what_is_compared_at_first_has_a_task_in_common(
    tab: Any, serve: Show, make_run: MakeRun
) -> None:
    folder = make_run()
    shutil.rmtree(folder / "eval")
    steps = folder / "trajectories"
    played = gzip.decompress((steps / "step_000002.jsonl.gz").read_bytes())
    (steps / "step_000003.jsonl").write_bytes(played)
    (steps / "step_000004.jsonl").write_bytes(played.replace(b"task-", b"other-"))
    url = serve(folder)
    goto(tab, url, "compare")
    assert tab.get_by_label("left").input_value() == "0 train/2"
    assert tab.get_by_label("right").input_value() == "0 train/3"
    tab.get_by_label("right").select_option("0 train/4")
    tab.get_by_text("A training step draws tasks of its own").wait_for()


def test_each_sample_of_a_task_can_be_compared(tab: Any, serve: Show, make_run: MakeRun) -> None:
    folder = make_run()  # groups of four: episodes 0 and 2.1 are won
    played = gzip.decompress((folder / "trajectories" / "step_000002.jsonl.gz").read_bytes())
    lines = [json.loads(line) for line in played.splitlines()]
    better = [line | {"won": True} if line["member"] == 1 else line for line in lines]
    told = "".join(json.dumps(line) + "\n" for line in better)
    (folder / "trajectories" / "step_000003.jsonl").write_text(told)
    goto(tab, serve(folder), "compare")
    for side, step in (("left", 2), ("right", 3)):
        tab.get_by_label(side).select_option(f"0 train/{step}")
    tasks = tab.get_by_label("task", exact=True)
    assert tasks.locator("option").all_inner_texts() == [f"2/4 → 3/4 task-0000{n}" for n in (0, 1)]
    sample = tab.get_by_label("sample")
    assert sample.locator("option").all_inner_texts() == ["0", "1", "2.1", "3"]
    sample.select_option("1")
    tab.locator(".column h3", has_text="✗ lost (turns) · 3 turns").wait_for()
    heads = tab.locator(".column h3").all_inner_texts()
    assert [head.partition(" ✓ ")[2] for head in heads] == ["", "won · 3 turns"]
    tab.get_by_label("tasks", exact=True).select_option("dropped")
    tab.get_by_text("No task is in both like that.").wait_for()


def test_a_page_that_was_left_does_not_come_back(tab: Any, serve: Show, make_run: MakeRun) -> None:
    url = serve(make_run())
    slow: list[Any] = []
    tab.route("**/trajectory?*line=1", lambda route: slow.append(route))
    tab.goto(f"{url}#t/0/train%2F2/1")
    tab.get_by_text("reading …").wait_for()
    while not slow:
        tab.wait_for_timeout(10)
    goto(tab, url, "t/0/train%2F2/2")
    with tab.expect_response("**/trajectory?*line=1"):
        slow[0].continue_()
    tab.wait_for_timeout(50)
    assert "episode 1" in tab.locator(".facts").inner_text()


def test_a_page_that_is_opened_by_its_address_can_be_leafed_through(
    tab: Any, serve: Show, make_run: MakeRun
) -> None:
    goto(tab, serve(make_run()), "t/0/train%2F2/2")
    tab.get_by_text("← previous").wait_for()
    tab.get_by_text("next →").click()
    tab.wait_for_url("**#t/0/train%2F2/3")


def test_evaluations_of_several_suites_are_named_by_them(
    tab: Any, serve: Show, make_run: MakeRun
) -> None:
    folder = make_run()
    first = folder / "eval" / "step_000000"
    for suite in ("alfworld/gen-unseen", "webshop/test"):
        (first / suite).mkdir(parents=True)
        shutil.copy(first / "trajectories.jsonl.gz", first / suite)
    (first / "trajectories.jsonl.gz").unlink()
    goto(tab, serve(folder), "compare")
    assert tab.get_by_label("left").locator("option").all_inner_texts() == [
        "evaluation step 0, alfworld/gen-unseen", "evaluation step 0, webshop/test",
        "training step 2",
    ]  # fmt: skip


def test_the_ends_of_a_narrow_scale_are_told_apart(
    tab: Any, serve: Show, make_run: MakeRun
) -> None:
    folder = make_run()
    turns = {"actor/entropy_turn_0": 5.70012, "actor/entropy_turn_1": 5.70034}
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, **turns}) + "\n")
    goto(tab, serve(folder), "curves")
    scale = tab.locator(".chart", has_text="Entropy by turn").locator(".scale")
    assert scale.inner_text().split() == ["5.70012", "5.70034"]


def test_a_task_is_told_by_its_end_and_its_goal(tab: Any, serve: Show, make_run: MakeRun) -> None:
    goto(tab, serve(make_run()), "trajectories")
    cell = tab.locator(".row.item .tail").first
    assert cell.inner_text().startswith("task-")
    assert cell.evaluate("e => getComputedStyle(e).direction") == "rtl"
    assert tab.get_by_role("columnheader", name="Goal").count() == 1


def test_what_a_model_said_is_shown_as_text(tab: Any, serve: Show, make_run: MakeRun) -> None:
    url = serve(make_run(say=EVIL))
    for line in (1, 5):  # with tokens and without
        goto(tab, url, f"t/0/train%2F2/{line}")
        assert EVIL in tab.locator(".said").first.inner_text()
    assert tab.locator("#main img, #main script").count() == 0
    assert "gone" not in tab.title()


def test_an_exported_page_works_from_the_disk_without_a_server(
    tab: Any, make_run: MakeRun, tmp_path: Path
) -> None:
    export([open_run(make_run(say=EVIL))], tmp_path / "report.html", 100)
    url = (tmp_path / "report.html").as_uri()
    goto(tab, url, "trajectories")
    assert tab.locator("#count").inner_text() == "16 of 16"
    goto(tab, url, "t/0/train%2F2/1")
    assert EVIL in tab.locator(".said").first.inner_text()
    goto(tab, url, "compare")
    goto(tab, url, "about")
    assert "gone" not in tab.title()


def test_ten_thousand_trajectories_stay_usable(tab: Any, serve: Show, make_run: MakeRun) -> None:
    url = serve(make_run(trajectories=10_000))
    begun = time.perf_counter()
    goto(tab, url, "trajectories")
    assert time.perf_counter() - begun < 15
    assert tab.locator("#count").inner_text() == "10,008 of 10,008"
    assert tab.locator(".row.item").count() < 100
    tab.locator(".table").evaluate("t => { t.scrollTop = t.scrollHeight }")
    tab.get_by_text("task-02499").first.wait_for(timeout=2000)
    begun = time.perf_counter()
    tab.get_by_label("Task or goal").fill("task-01234")
    assert tab.locator("#count").inner_text() == "4 of 10,008"
    assert time.perf_counter() - begun < 2
    tab.locator(".row.item").first.click()
    tab.get_by_text("task task-01234").wait_for(timeout=5000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out_and_text_can_be_read(
    browser: Any, serve: Show, make_run: MakeRun, scheme: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    folder = make_run()
    steps = folder / "trajectories"
    played = gzip.decompress((steps / "step_000002.jsonl.gz").read_bytes())
    for n in (2, 3):
        long = played.replace(b"task-", b"a-task-whose-name-is-wider-than-any-telephone-")
        (steps / f"step_{n:06d}.jsonl.gz").write_bytes(gzip.compress(long))
    shutil.rmtree(folder / "eval")
    url = serve(folder)
    for view in ("curves", "trajectories", "t/0/train%2F2/1", "compare", "about"):
        goto(page, url, view)
        room = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert room <= 0, view
        rims = page.locator(".bar select").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().right)"
        )
        assert all(rim <= width for rim in rims), view
        heads = page.locator(".row.head span").evaluate_all(
            "all => all.filter(one => one.scrollWidth > one.clientWidth).map(o => o.textContent)"
        )
        assert heads == []
    style = "getComputedStyle(document.documentElement).getPropertyValue"
    for name in ("text", "quiet", "good", "bad", "accent"):
        ink, paper = (page.evaluate(f"{style}('--{n}').trim()") for n in (name, "raised"))
        assert contrast(ink, paper) >= 4.5, name
    page.close()


def contrast(a: str, b: str) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_a_run_that_is_broken_in_places_says_where(
    tab: Any, serve: Show, make_run: MakeRun
) -> None:
    folder = make_run()
    (folder / "trajectories" / "step_000003.jsonl.gz").write_bytes(b"no gzip")
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"loss": 1}) + "\n")
    goto(tab, serve(folder), "trajectories")
    notes = tab.locator(".note").all_inner_texts()
    assert [note.split("/")[-1] for note in notes] == [
        "metrics.jsonl line 4: no step in it; left out",
        "step_000003.jsonl.gz: not gzip, or broken (Not a gzipped file (b'no'))",
    ]
