"""Every view: what is on it, whether everybody can use it, whether it fits."""

import os
import pathlib

import pytest
from conftest import ADMIN_KEY, DESK, PHONE

AXE = pathlib.Path(os.environ["AXE"]).read_text()
VIEWS = {
    "now": "/spillway/",
    "history": "/spillway/history?reach=day",
    "money": "/spillway/money",
    "what-if": "/spillway/what-if",
    "calls": "/spillway/calls",
}
SCENES = ["week", "empty", "large", "odd"]


def flaws(page):
    """What axe-core finds, in words."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html']}" for one in found]


def follow(page, link):
    """Clicks what leads to another page, and waits until that is there."""
    with page.expect_navigation():
        link.click()


def is_too_wide(page):
    return page.evaluate(
        "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    )


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_for_everybody_and_fits(open_page, scene, view):
    page = open_page(scene, VIEWS[view])
    assert page.locator("h1").count() == 1
    assert page.locator("nav [aria-current=page]").count() == 1
    # A large page differs by its rows only, and axe looks at each.
    is_looked_at = scene != "large" or view == "now"
    assert not is_looked_at or flaws(page) == []
    assert not is_too_wide(page)
    page.set_viewport_size(PHONE)
    assert not is_too_wide(page), "on a phone"
    if scene != "large":
        page.emulate_media(color_scheme="dark")
        assert flaws(page) == [], "in the dark, on a phone"


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_needs_no_script(open_page, view):
    page = open_page("week", VIEWS[view], java_script_enabled=False)
    assert page.locator("h1").count() == 1
    assert page.locator("main").inner_text().strip() != ""


def test_now_shows_deployments_and_follows_them(open_page, scenes):
    page = open_page("week")
    row = page.locator("tr", has_text="simulated-ptu").filter(has_text="gpt-4o").first
    assert "serving" in row.inner_text()
    before = page.locator("#moving time").first.get_attribute("datetime")
    page.wait_for_function(
        "before => document.querySelector('#moving time').dateTime !== before", arg=before
    )
    answer = page.request.post(
        scenes.url("week") + "/v1/chat/completions",
        data={"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]},
    )
    assert answer.ok
    tokens = "document.querySelectorAll('.tiles dd')[1].textContent"
    page.wait_for_function(f"() => parseFloat({tokens}) > 0")


def test_now_shows_pacing_and_the_queue(open_page):
    page = open_page("week")
    table = page.get_by_role("region", name="Utilization by source: gpt-4o")
    row = table.locator("tbody tr").filter(has_text="simulated-ptu")
    cells = row.locator("td").all_inner_texts()
    monitor, calls, _, alert, factor, together = cells
    assert "%" in monitor and "min ago" in monitor
    assert "%" in calls and "97 %" in alert and "past" in alert
    assert factor == "1.08" and "%" in together
    slots = page.get_by_role("img", name="Slots of gpt-4o").get_attribute("aria-label")
    assert ": 3 in use" in slots and "of 10; all up to 20 % utilization, none from 90 % on" in slots
    tiles = page.locator("section", has_text="Batch queue batch").locator(".tiles").inner_text()
    assert "FOR LATER" in tiles.upper() and "12" in tiles
    page.wait_for_function("() => document.body.textContent.includes('Waited until delivered')")


def test_a_paused_page_stands_still(open_page):
    page = open_page("week")
    pause = page.get_by_role("button", name="Pause")
    pause.click()
    assert pause.get_attribute("aria-pressed") == "true"
    moment = page.locator("#moving time").first.get_attribute("datetime")
    page.wait_for_timeout(2500)
    assert page.locator("#moving time").first.get_attribute("datetime") == moment
    pause.click()
    page.wait_for_function(
        "before => document.querySelector('#moving time').dateTime !== before", arg=moment
    )


def test_history_draws_what_was(open_page):
    page = open_page("week", "/spillway/history?reach=week")
    assert page.locator("figure.chart svg[role=img]").count() >= 6
    label = page.get_by_role("img", name="Tokens served").get_attribute("aria-label")
    assert "PTU: at most" in label and "at most 0" not in label.split(";")[1]
    utilization = page.get_by_role("img", name="PTU utilization").get_attribute("aria-label")
    assert "Azure Monitor: at most" in utilization and "alert: at most 97 %" in utilization
    assert page.get_by_text("upper limit 90 %").count() == 1
    follow(page, page.get_by_role("link", name="hour"))
    page.get_by_label("Model").select_option("gpt-4o")
    follow(page, page.get_by_role("button", name="Show"))
    assert "reach=hour" in page.url and "model=gpt-4o" in page.url
    page.get_by_text("The figures").click()
    assert page.get_by_role("region", name="The figures").locator("tbody tr").count() > 50


def test_money_adds_up(open_page, scenes):
    page = open_page("week", "/spillway/money")
    rows = page.get_by_role("region", name="By app").locator("tbody tr")
    apps = set(rows.locator("th").all_inner_texts())
    assert {"portal", "reports", "search"} <= apps
    cents = [number(text) for text in rows.locator("td:nth-child(2)").all_inner_texts()]
    total = number(page.locator(".tiles dd").first.inner_text().split()[0])
    assert total > 0 and abs(sum(cents) - total) <= 0.005 * (1 + len(apps))
    assert page.locator(".heat td").count() == 168
    with page.expect_download() as started:
        page.get_by_role("link", name="CSV").click()
    lines = open(started.value.path(), encoding="utf-8").read().splitlines()
    assert lines[0].startswith("month,app,calls,") and len(lines) == 1 + len(apps)
    month = page.get_by_label("Month").locator("option").nth(1).inner_text()
    page.get_by_label("Month").select_option(month)
    follow(page, page.get_by_role("button", name="Show"))
    assert f"month={month}" in page.url


def number(text):
    return float(text.replace(",", ""))


def test_what_if_replays(open_page):
    page = open_page("week", "/spillway/what-if?model=gpt-4o")
    assert "15 PTUs instead of 15" in page.locator("main").inner_text()
    page.get_by_label("PTUs", exact=True).fill("1")
    follow(page, page.get_by_role("button", name="Replay"))
    assert "ptus=1" in page.url and "1 PTUs instead of 15" in page.locator("main").inner_text()
    rows = page.get_by_role("region", name="From none to enough").locator("tbody tr")
    spilled = [number(text.split()[0]) for text in rows.locator("td:nth-child(7)").all_inner_texts()]
    # Low-priority work waits instead of spilling.
    assert spilled == sorted(spilled, reverse=True) and 50 < spilled[0] < 100 and spilled[-1] == 0
    assert "Break-even" in page.locator("main").inner_text()
    page.get_by_label("Upper limit, %").fill("40")
    page.get_by_label("Slots").fill("7")
    page.get_by_label("PAYG tokens/min").fill("1000")
    follow(page, page.get_by_role("button", name="Replay"))
    said = page.locator("main").inner_text()
    assert "7 slots are open up to 20 % utilization, none from 40 % on" in said
    assert "Pay-as-you-go serves 1,000 tokens a minute" in said and "REFUSED BY PAYG" in said.upper()
    page.get_by_label("Slots").fill("")
    follow(page, page.get_by_role("button", name="Replay"))
    assert "10 slots are open" in page.locator("main").inner_text()
    assert "Within an hour demand counts as even" in page.locator("main").inner_text()


def test_calls_are_searched(open_page):
    page = open_page("week", "/spillway/calls")
    rows = page.locator("main > .scroll tbody > tr")
    assert rows.count() > 0
    page.get_by_label("Status").select_option("slow")
    follow(page, page.get_by_role("button", name="Search"))
    assert 0 < rows.count() and "14.0 s" in rows.first.inner_text()
    rows.first.locator("summary").click()
    assert "simulated-" in rows.first.locator("li").first.inner_text()
    page.get_by_label("Request id").fill("nonsense")
    follow(page, page.get_by_role("button", name="Search"))
    assert "26 letters" in page.get_by_role("alert").inner_text()


def test_names_are_text(open_page):
    page = open_page("odd")
    assert "<script>alert(1)</script>&\"'🚰" in page.locator("main").inner_text()
    page = open_page("odd", "/spillway/history")
    options = page.get_by_label("Model").locator("option").all_inner_texts()
    assert "🛶" * 30 + "<b>" in options


def test_an_administrator_signs_in_and_out(open_page):
    page = open_page("locked", "/spillway/calls?status=slow", allowed=["401"])
    assert "/spillway/sign-in" in page.url
    assert flaws(page) == []
    key = page.get_by_label("Admin key or access token")
    key.fill("not it")
    with page.expect_navigation():
        key.press("Enter")
    assert "no administrator" in page.get_by_role("alert").inner_text()
    assert flaws(page) == []
    key.fill(ADMIN_KEY)
    key.press("Enter")
    page.wait_for_url("**/spillway/calls?status=slow")
    assert page.get_by_label("Status").input_value() == "slow"
    [cookie] = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and ADMIN_KEY not in cookie["value"]
    assert page.evaluate("document.cookie") == ""
    page.goto(page.url.split("/spillway")[0] + "/spillway/")
    page.wait_for_function("() => !document.querySelector('#pause').hidden")
    follow(page, page.get_by_role("button", name="Sign out"))
    page.goto(page.url.split("/spillway")[0] + "/spillway/")
    assert "/spillway/sign-in" in page.url


def test_the_keyboard_reaches_everything(open_page):
    page = open_page("week")
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
    assert {"Spillway", "Now", "History", "Calls", "Pause"} <= reached


def test_large_pages_are_small(open_page, scenes):
    page = open_page("large", viewport=DESK)
    assert page.locator("section").count() == 3
    for path in VIEWS.values():
        body = page.request.get(scenes.url("large") + path).body()
        assert len(body) <= 300_000, path
