"""Opens an edge's page in a browser and tells how far it got: "relayed", "direct", and at the end what it noted.

page_watcher.py URL OWN_MAC PEER_MAC NAME MEMBERS [GOES]

NAME: of the screenshots. GOES: a member of this name goes offline at the end.
"""

from __future__ import annotations

import json
import re
import sys

from playwright.sync_api import Page, expect

from tests.browser import PATIENCE, browser, watched


def say(word: str) -> None:
    print(word, flush=True)


def places(page: Page) -> dict[str, str]:
    """Where every member is drawn."""
    found: dict[str, str] = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#map g.node')].map("
        "g => [g.dataset.mac, g.querySelector('.mark').getAttribute('cx')]))"
    )
    return found


def main(url: str, own: str, peer: str, name: str, members: str, goes: str) -> None:
    expect.set_options(timeout=3 * PATIENCE)
    with browser() as chromium, watched(chromium, url) as seen:
        page = seen.page
        expect(page.locator("#members li")).to_have_count(int(members))
        path = page.locator(f'path.link[data-a="{own}"][data-b="{peer}"]')
        expect(path).to_have_class(re.compile("relay"))
        page.evaluate("window.unchanged = true")
        before = places(page)
        page.wait_for_timeout(900)
        seen.shot(f"{name}-relayed")
        say("relayed")
        expect(path).to_have_class(re.compile("direct"))
        page.wait_for_timeout(900)
        seen.shot(f"{name}-direct")
        colour = page.evaluate("e => getComputedStyle(e).stroke", path.element_handle())
        assert colour == "rgb(31, 157, 97)", colour
        say("direct")
        if goes:
            expect(page.locator("#members li.offline")).to_contain_text(goes)
            seen.shot(f"{name}-offline")
        found = {
            "errors": seen.errors,
            "foreign": seen.foreign,
            "reloaded": page.evaluate("window.unchanged") is not True,
            "moved": places(page) != before,
        }
    say(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:6], sys.argv[6] if len(sys.argv) > 6 else "")
