"""The page in a real browser, with communities that never were. Screenshots are kept in artefacts/."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from n2n.web.pages import EdgePages
from tests.browser import PATIENCE, browser, watched
from tests.unit import web_fakes
from tests.unit.web_fakes import community, mac_of, methods_of, name_of, served

expect.set_options(timeout=PATIENCE)
HOSTILE = "<img src=x onerror=alert(1)>"


#: What cannot be read of the page as it is shown at first: texts that are small, lie outside of the drawing, or over
#: each other. Where labels stand like rays around the members, neighbours are a line of text apart at the inner end.
UNREADABLE = """() => {
    const faults = [], map = document.getElementById("map").getBoundingClientRect();
    const texts = [...document.querySelectorAll("#map g.node text")].filter((text) =>
        text.textContent && getComputedStyle(text).visibility !== "hidden");
    const seen = texts.map((text) => {
        const at = text.getScreenCTM(), font = parseFloat(getComputedStyle(text).fontSize);
        const size = font * Math.hypot(at.a, at.b), box = text.getBoundingClientRect();
        const turned = !!text.getAttribute("transform"), x = +text.getAttribute("x");
        const y = +text.getAttribute("y") - 0.35 * font;  // from the line that letters stand on to their middle
        const middle = { x: at.a * x + at.c * y + at.e, y: at.b * x + at.d * y + at.f };
        return { what: text.textContent, box, size, turned, ...middle };
    });
    for (const { what, box, size } of seen) {
        if (size < LEAST) faults.push(`${what}: ${size} pixels`);
        if (box.left < map.left || box.right > map.right || box.top < map.top || box.bottom > map.bottom)
            faults.push(`${what}: outside`);
    }
    seen.forEach((a, index) => seen.slice(index + 1).forEach((b) => {
        const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
        const high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
        const apart = Math.hypot(a.x - b.x, a.y - b.y);
        if (a.turned && b.turned ? apart < 0.9 * a.size : !a.turned && !b.turned && wide > 1 && high > 3)
            faults.push(`${a.what} and ${b.what} lie over each other`);
    }));
    for (const text of document.querySelectorAll("#members li *"))
        if (text.textContent && parseFloat(getComputedStyle(text).fontSize) < 11)
            faults.push(`${text.textContent}: small`);
    return faults.slice(0, 20);
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_fakes, "NOW", time.time())


def answers_of(members: int, offline: int = 0) -> dict[str, Any]:
    changes = [{"at": time.time() - 60, "path": "direct", "reason": "answered"}]
    history = {"at": time.time(), "peer": "", "changes": changes}
    return community(members, offline=offline, others=30) | {"counters": {}, "history": history}


def link(page: Page, a: int, b: int) -> Any:
    return page.locator(f'path.link[data-a="{mac_of(a)}"][data-b="{mac_of(b)}"]')


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("members", "offline"), [(2, 0), (3, 0), (12, 2), (200, 12)])
def test_it_is_drawn_in_light_and_dark(chromium: Browser, scheme: str, members: int, offline: int) -> None:
    with (
        served(EdgePages(methods_of(answers_of(members, offline))).answer) as (where, _),
        watched(chromium, f"http://{where}/peers", scheme=scheme) as seen,
    ):
        page = seen.page
        expect(page.locator("#members li")).to_have_count(members)
        expect(page.locator("#map g.node")).to_have_count(members)
        expect(page.locator("#community")).to_have_text("our-community")
        expect(page.locator("#fresh-text")).to_contain_text("live")
        expect(page.locator("#map g.node.offline")).to_have_count(offline)
        own = page.locator("path.link.own")
        expect(own).to_have_count(members - offline - 1)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper))) > 384) == (scheme == "light")
        assert page.evaluate(UNREADABLE.replace("LEAST", "7" if members > 100 else "11")) == []
        page.wait_for_timeout(900)  # colours fade in
        seen.shot(f"page-{members}-{scheme}")
        assert (seen.errors, seen.foreign) == ([], [])


def test_a_path_that_changes_is_drawn_anew_without_a_reload(chromium: Browser) -> None:
    answers = answers_of(3)
    peer = answers["peers"]["peers"][0]
    peer |= {"path": "relay", "full_duplex": False, "one_way": False}
    peer |= {"kind": "v5", "nat": "hard"}
    answers["state"]["reachable"] = []
    with (
        served(EdgePages(methods_of(answers)).answer) as (where, _),
        watched(chromium, f"http://{where}/peers") as seen,
    ):
        page = seen.page
        expect(link(page, 0, 1)).to_have_class("link relay own")
        page.evaluate("window.unchanged = true")
        peer |= {"path": "direct", "full_duplex": False, "one_way": True}
        expect(link(page, 0, 1)).to_have_class(re.compile("one_way"))
        page.locator(f'.row[data-mac="{mac_of(1)}"]').click()
        more = page.locator("#members li.chosen .more")
        expect(more).to_contain_text(peer["endpoint"])
        expect(more).to_contain_text("protocol v5 alone")
        expect(more).to_contain_text("a NAT with a port for each peer")
        peer |= {"full_duplex": True, "one_way": False, "in_use": "192.0.2.99:9", "rtt": 0.0123}
        peer |= {"reason": "answered", "since": time.time() - 3700, "tx_bytes": 1234, "rx_bytes": 98765}
        for fact in ("Path.*direct, both ways", "Since1 h, it answered our ping", r"Sent1\.2 kB", r"Received98\.8 kB"):
            expect(more).to_contain_text(re.compile(fact))
        expect(page.locator("#members li.chosen .how b")).to_have_text("12 ms")
        expect(more).to_contain_text("192.0.2.99:9")
        expect(link(page, 0, 1)).to_have_class(re.compile("direct"))
        expect(page.locator("#news")).to_contain_text(f"{peer['name']} now direct")
        assert page.evaluate("window.unchanged") is True
        place = page.locator(f'g.node[data-mac="{mac_of(2)}"] .mark')
        before = place.get_attribute("cx")
        gone = answers["peers"]["peers"].pop()
        answers["state"]["offline"] = [gone | {"last_seen": time.time()}]
        expect(page.locator("#map g.node.offline")).to_have_count(1)
        assert place.get_attribute("cx") == before
        assert (seen.errors, seen.foreign) == ([], [])


def test_it_says_how_old_it_is_while_the_supernode_is_silent(chromium: Browser) -> None:
    answers = answers_of(3, 1)
    told, answers["state"] = answers["state"], TimeoutError()
    pages = EdgePages(methods_of(answers))
    pages._state._refresh = 0.1
    with served(pages.answer) as (where, _), watched(chromium, f"http://{where}/peers") as seen:
        fresh = seen.page.locator("#fresh-text")
        expect(fresh).to_have_text("live · the supernode has not answered yet")
        answers["state"] = told | {"at": time.time() - 5}
        expect(fresh).to_have_text(re.compile(r"live · everybody as of \d+ s ago"))
        answers["state"] = told | {"at": time.time() - 90}
        expect(fresh).to_have_text(re.compile(r"live · the supernode was last heard 1 min ago"))
        answers["state"] = TimeoutError()
        expect(seen.page.locator("#fresh")).to_have_class("stale")
        assert (seen.errors, seen.foreign) == ([], [])


def test_it_can_be_used_by_keyboard(chromium: Browser) -> None:
    with (
        served(EdgePages(methods_of(answers_of(12))).answer) as (where, _),
        watched(chromium, f"http://{where}/peers") as seen,
    ):
        page = seen.page
        expect(page.locator("#members li")).to_have_count(12)
        page.keyboard.press("/")
        page.keyboard.type("nas")
        expect(page.locator("#members li:visible")).to_have_count(2)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        row = page.locator(f'.row[data-mac="{mac_of(1)}"]')
        expect(row).to_have_attribute("aria-expanded", "true")
        more = page.locator("#members li.chosen .more")
        expect(more).to_contain_text(mac_of(1))
        expect(more).to_contain_text("1 min ago")
        page.wait_for_timeout(500)
        seen.shot("page-chosen")
        page.keyboard.press("Escape")
        expect(page.locator("#members li.chosen")).to_have_count(0)
        # The drawing is one stop of Tab; arrows go from member to member.
        page.locator("#find").fill("")
        first = page.locator('#map g.node[tabindex="0"]')
        expect(first).to_have_count(1)
        first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        chosen = page.locator("#map g.node.chosen")
        expect(chosen).to_have_attribute("data-mac", mac_of(1))
        expect(chosen).to_have_attribute("aria-label", re.compile(name_of(1)))
        expect(page.locator(f'g.node[data-mac="{mac_of(0)}"]')).not_to_have_class(re.compile("dim"))
        view = page.locator("#map").get_attribute("viewBox")
        page.keyboard.press("+")
        expect(page.locator("#map")).not_to_have_attribute("viewBox", view or "")
        page.keyboard.press("0")
        expect(page.locator("#map")).to_have_attribute("viewBox", view or "")
        assert (seen.errors, seen.foreign) == ([], [])


def test_names_are_only_text(chromium: Browser) -> None:
    answers = answers_of(4, 1)
    for entry in (*answers["peers"]["peers"], *answers["state"]["offline"]):
        entry |= {"name": HOSTILE, "reason": HOSTILE, "endpoint": HOSTILE}
    answers["status"] |= {"community": HOSTILE, "name": HOSTILE}
    with (
        served(EdgePages(methods_of(answers)).answer) as (where, _),
        watched(chromium, f"http://{where}/peers") as seen,
    ):
        page = seen.page
        expect(page.locator("#community")).to_have_text(HOSTILE)
        page.locator(".row").nth(1).click()
        expect(page.locator("li.chosen .more")).to_contain_text(HOSTILE)
        assert page.locator("main img").count() == 0
        for path in ("peers.svg", "peers.dot", "peers.json"):
            page.goto(f"http://{where}/{path}")
        assert (seen.errors, seen.foreign) == ([], [])


def test_of_many_the_links_of_one_are_shown_when_it_is_chosen(chromium: Browser) -> None:
    with (
        served(EdgePages(methods_of(answers_of(60))).answer) as (where, _),
        watched(chromium, f"http://{where}/peers", scheme="dark") as seen,
    ):
        page = seen.page
        expect(page.locator("#members li")).to_have_count(60)
        expect(page.locator("path.link")).to_have_count(59)
        page.locator(f'.row[data-mac="{mac_of(5)}"]').click()
        expect(page.locator("path.link.lit")).to_have_count(59)
        page.wait_for_timeout(500)
        seen.shot("page-60-chosen")
        assert (seen.errors, seen.foreign) == ([], [])


def test_a_small_screen(chromium: Browser) -> None:
    with (
        served(EdgePages(methods_of(answers_of(5, 1))).answer) as (where, _),
        watched(chromium, f"http://{where}/peers", size=(390, 844)) as seen,
    ):
        expect(seen.page.locator("#members li")).to_have_count(5)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
        seen.shot("page-small")
