"""The live page in a real browser: what it shows, as text and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.browser import Browser, click, texts, type_into
from tests.live.live_server import make_run, serving
from tests.live.logged import SCORE, rows


def test_runs_are_listed_and_any_of_them_compared(
    tmp_path: Path, visit: Callable[..., Browser]
) -> None:
    for name, loss in (("gpt", 1.5), ("mlp", 2.0), ("bigram", 2.5)):
        make_run(tmp_path / name, rows(100, loss), model=name, val=SCORE)
    (tmp_path / "mlp" / "config.yaml").write_text("model:\n  n_layer: 9\ntrain:\n  steps: 1000\n")
    page = visit()
    page.wait("document.querySelectorAll('.runs tbody tr').length === 3")
    page.wait("document.querySelectorAll('.picture:first-child .line').length === 3")
    assert texts(page, ".run a") == ["mlp · char · s0", "bigram · char · s0", "gpt · char · s0"]
    ends = ".picture:first-child .name .value"
    assert sorted(texts(page, ends)) == ["1.530", "2.030", "2.530"]
    assert "model.n_layer" in page.wait("document.querySelector('.differences code')?.textContent")

    click(page, ".runs tbody tr:first-child input")
    page.wait("document.querySelectorAll('.picture:first-child .line').length === 2")
    assert sorted(texts(page, ends)) == ["1.530", "2.530"]
    assert "2 compared" in texts(page, ".chosen")[0]
    click(page, ".choice button", "FLOPs")
    page.wait("document.querySelector('.axis-name').textContent === 'FLOPs'")
    click(page, ".toggle", "log y")
    address = page.run("location.href")
    assert "axis=flops" in address
    assert "logy=1" in address
    page.call("Page.reload")  # the address holds what was chosen
    page.wait("document.querySelectorAll('.picture:first-child .line').length === 2")
    assert texts(page, ".axis-name") == ["FLOPs", "FLOPs"]

    type_into(page, "input[type=search]", "mlp finished")
    page.wait("document.querySelectorAll('.runs tbody tr').length === 1")
    click(page, ".chosen button", "follow")
    page.wait("document.querySelectorAll('.picture:first-child .line').length === 3")


def test_what_is_drawn_is_what_was_logged(tmp_path: Path, visit: Callable[..., Browser]) -> None:
    make_run(tmp_path / "a", rows(100, 1.5))
    page = visit()
    page.wait("document.querySelectorAll('.picture .line').length === 2")
    box = page.run(
        "(() => { const box = document.querySelectorAll('.plot')[1].getBoundingClientRect();"
        "return [box.left, box.top, box.width]; })()"
    )
    move = {"type": "mouseMoved", "y": box[1] + 60}
    page.call("Input.dispatchMouseEvent", x=box[0] + box[2] * 0.4, **move)
    page.wait("!document.querySelectorAll('.tip')[1].hidden")
    tip = "document.querySelectorAll('.tip')[1]"
    step = float(page.run(f"{tip}.querySelector('b').textContent").split()[0])
    shown = float(page.run(f"{tip}.querySelector('.value').textContent"))
    assert 20 < step < 80
    assert shown == pytest.approx(1.5 + 2 / (step + 1), abs=0.01)
    # Dragging looks closer.
    for kind, share in (("mousePressed", 0.3), ("mouseMoved", 0.35), ("mouseReleased", 0.4)):
        page.call(
            "Input.dispatchMouseEvent",
            type=kind, x=box[0] + box[2] * share, y=box[1] + 60, button="left", clickCount=1,
        )  # fmt: skip
    toggles = "[...document.querySelectorAll('.toggle:not([hidden])')]"
    page.wait(f"{toggles}.some((each) => each.textContent === 'whole run')")
    page.wait("!document.querySelectorAll('.plot')[1].textContent.includes('100')")


def test_a_runs_page_shows_configuration_samples_and_histograms(
    tmp_path: Path, visit: Callable[..., Browser]
) -> None:
    random.seed(1)
    seen = rows(60, 1.5)
    for step in (0, 20, 40, 60):
        for layer in range(12):
            counts = [random.randrange(9) + 1 for _ in range(30)]
            edges = [k / 10 - 1.5 - step / 100 for k in range(31)]
            seen[step] |= {
                f"activations/blocks.{layer}/histogram": {"counts": counts, "edges": edges},
                f"updates/blocks.{layer}.weight/log10_ratio": -3 + layer / 10,
            }
    folder = make_run(tmp_path / "a", seen, val=SCORE, test=SCORE)
    (folder / "samples.txt").write_text("=== step 0 ===\nxq zj\n\n=== step 60 ===\nTo be\n\n")
    page = visit()
    click(page, ".run a")
    page.wait("document.querySelectorAll('.one .line').length >= 3")
    assert texts(page, ".samples pre") == ["To be"]
    assert any(text.startswith("not certified: no certificate") for text in texts(page, "dd"))
    page.run(
        "(() => { const box = document.querySelector('.samples input'); box.value = 0;"
        "box.dispatchEvent(new Event('input')); })()"
    )
    assert texts(page, ".samples pre") == ["xq zj"]
    assert "n_layer2" in "".join(texts(page, ".config tr"))
    click(page, "summary", "Activations")
    page.wait("document.querySelectorAll('.ridge').length === 12 * 4")
    assert texts(page, ".ridges h4")[10] == "blocks.10"
    assert "half of it between" in texts(page, ".ridges .caption")[0]
    click(page, "summary", "Updates")
    page.wait("document.querySelectorAll('details[open] .mark').length === 1")
    page.wait("document.querySelectorAll('details[open] .grid .line').length === 12")
    colours = page.run(
        "new Set([...document.querySelectorAll('details[open] .grid .line')]"
        ".map((line) => getComputedStyle(line).stroke)).size"
    )
    assert colours == 12


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_scrolls_one_way(dark: bool, tmp_path: Path, visit: Callable[..., Browser]) -> None:
    for name in ("gpt", "perceiver_ar"):
        make_run(tmp_path / f"{name}-{'long' * 20}", rows(50, 2.0), model=name, val=SCORE)
    page = visit()
    page.look(390, dark=dark)
    page.wait("document.querySelectorAll('.picture .line').length === 4")
    assert page.run("document.documentElement.scrollWidth") == 390
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) is dark
    click(page, "#start")
    assert page.run("document.querySelector('dialog').getBoundingClientRect().right") <= 390
    click(page, "dialog button", "Close")
    click(page, ".run a")
    page.wait("document.querySelectorAll('.one .line').length >= 3")
    assert page.run("document.documentElement.scrollWidth") == 390


EVIL = (
    "<script>window.hacked = 1</script>",
    "\"><img src=x onerror='window.hacked = 1'>",
    "</title></style><svg onload=window.hacked=1>",
    "javascript:window.hacked=1",
    "{{7*7}}${7*7}`",
    "\u202eevil\u0000\x1b[31m",
)


def test_what_a_run_says_is_text(tmp_path: Path, visit: Callable[..., Browser]) -> None:
    """Names, samples, settings, metrics, errors and folders that would be HTML if they could."""
    for number, evil in enumerate(EVIL):
        folder = tmp_path / f"{number} {evil.translate(dict.fromkeys(map(ord, '/' + chr(0))))}"
        first, *others = rows(40, 2.0)
        first |= {evil: 1.0, f"val/{evil}/x": 2.0, f"{evil}/h": {"counts": [1], "edges": [0, 1]}}
        names = dict.fromkeys(("model", "tokenizer", "data"), evil)
        make_run(folder, [first, *others], status="failed", error=evil, git={evil: evil}, **names)
        (folder / "samples.txt").write_text(f"=== step 0 ===\n{evil}\n\n")
        (folder / "train.log").write_text(evil)
        (folder / "config.yaml").write_text(json.dumps({evil: {evil: evil}, "train": {"steps": 3}}))
    page = visit()
    page.wait(f"document.querySelectorAll('.runs tbody tr').length === {len(EVIL)}")
    page.wait("document.querySelectorAll('.picture .line').length > 0")
    page.wait("document.querySelectorAll('.differences td').length > 0")
    shown = page.run("document.body.innerText")
    assert EVIL[0] in shown
    assert EVIL[1] in shown
    for number in range(len(EVIL)):
        page.run("location.hash = '#/'")
        page.wait(f"document.querySelectorAll('.runs tbody a').length === {len(EVIL)}")
        page.run(f"document.querySelectorAll('.runs tbody a')[{number}].click()")
        page.wait("document.querySelectorAll('.samples pre').length === 1")
        page.wait("document.querySelectorAll('.one .line').length > 0")
        page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        page.wait("document.querySelectorAll('.ridges').length > 0")
    assert page.run("window.hacked") is None
    # The page's own elements, and no others.
    assert page.run("document.querySelectorAll('script').length") == 1
    assert page.run("[...document.images].map((each) => each.getAttribute('src'))") == ["/icon.svg"]
    assert (
        page.run("document.querySelectorAll('iframe, object, embed, style, [onload]').length") == 0
    )


def test_a_mutant_that_takes_text_for_html_is_caught(tmp_path: Path, browser: Browser) -> None:
    """With its own rules against foreign scripts put aside, the test above can fail."""
    make_run(tmp_path / "a", rows(3, 2.0), model=EVIL[1])
    with serving(tmp_path) as client:
        source = client.server.files["/dom.js"].decode()
        assert "element.textContent = text" in source
        mutant = source.replace("element.textContent = text", "element.innerHTML = text")
        client.server.files["/dom.js"] = mutant.encode()
        browser.call("Page.setBypassCSP", enabled=True)
        try:
            browser.open(client.server.address)
            browser.wait("window.hacked === 1")
        finally:
            browser.call("Page.setBypassCSP", enabled=False)
            browser.open("about:blank")


def test_the_key_leaves_the_address_and_is_kept_for_this_origin(
    tmp_path: Path, browser: Browser
) -> None:
    make_run(tmp_path / "a", rows(3, 2.0))
    with serving(tmp_path) as client:
        without = client.server.address.partition("?")[0]
        browser.open(without)
        browser.wait("document.querySelector('#offline').textContent.includes('carries a key')")
        assert texts(browser, ".run") == []
        browser.open(client.server.ticket())
        browser.wait("!!document.querySelector('.run')")
        assert client.server.key not in str(browser.run("location.href + document.cookie"))
        assert browser.run("location.search") == ""
        browser.open(without)
        browser.wait("!!document.querySelector('.run')")
        browser.open("about:blank")


def test_of_many_runs_some_are_listed_and_all_can_be_found(
    tmp_path: Path, visit: Callable[..., Browser]
) -> None:
    for number in range(210):
        make_run(tmp_path / f"{number:03}", model="mlp" if number == 7 else "gpt", seed=number)
    page = visit()
    page.wait("document.querySelectorAll('.runs tbody tr').length === 200")
    page.wait("document.querySelector('.listbar small').textContent === '200 of 210'")
    rest = "The first 200 of 210 are listed; filter or sort to see others."
    page.wait(f"document.querySelector('.rest').textContent === {json.dumps(rest)}")
    assert texts(page, "#summary") == ["0 training · 210 finished"]
    type_into(page, "input[type=search]", "mlp")
    page.wait("document.querySelectorAll('.runs tbody tr').length === 1")
    assert texts(page, ".run a") == ["mlp · char · s7"]
    assert texts(page, ".listbar small") == ["1 of 210"]
    assert page.run("document.querySelector('.rest').hidden")
    click(page, ".run a")  # a run that the whole list would not have shown
    page.wait("document.querySelector('h1').textContent === 'mlp · char · s7'")
