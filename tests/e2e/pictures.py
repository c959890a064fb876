"""Takes the pictures of the console in the documentation: `make pictures`.

A fleet without workers plays the scenes of `console_scenes`. Each page becomes a WebP of a few ten
kilobytes in docs/images/console. `--out FOLDER` takes other sizes and schemes too, as PNG, to look
at a change of the design.
"""

import argparse
import base64
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.e2e import console_scenes
from tests.e2e.console import Backstage, chromium
from tests.fixtures.valkey import Valkey

FOLDER = Path(__file__).parents[2] / "docs" / "images" / "console"
WIDTHS = (390, 1024, 1440, 1920)
_WIDE, _PHONE = (1280, 800), (390, 844)
_QUALITY = 0.72
_TO_WEBP = """async ([png, quality]) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/webp", quality).split(",")[1];
}"""


def pages(left: dict[str, str]) -> dict[str, str]:
    """The addresses of the pages by the names of their pictures."""
    return {
        "agents": "#/agents",
        "agent": "#/agent/archie",
        "dispatches": "#/dispatches",
        "dispatch": f"#/dispatch/{left['running']}",
        "session": "#/session/parser",
        "dead": f"#/dead?open=dispatch/{left['dead']}",
        "approval": f"#/approvals?open=dispatch/{left['approval']}",
        "fleet": "#/fleet",
        "send": "#/agents",
    }


def show(page: Page, stage: Backstage, name: str, address: str) -> None:
    """Open a page and wait until all of it is there."""
    console_scenes.keep_well(stage)
    page.goto("about:blank")
    page.goto(f"{stage.url}{address}")
    page.get_by_text("● live").wait_for()
    page.locator("#health", has_text="ok").wait_for()
    page.wait_for_timeout(1500)
    if name == "send":
        page.keyboard.press("n")
        page.get_by_role("textbox", name="Text").fill("Which tests are slow, and why?")
        page.get_by_role("combobox", name="To").fill("archie")
    if name == "dispatch":
        page.locator("#detail summary").first.click()
        page.locator("#detail details[open] > :nth-child(2)").first.wait_for()


@contextmanager
def played() -> Iterator[tuple[Backstage, dict[str, str]]]:
    """A fleet in which everything has happened."""
    with tempfile.TemporaryDirectory() as folder:
        valkey = Valkey(Path(folder))
        valkey.start()
        stage = console_scenes.stage_of(Path(folder), valkey)
        try:
            left = console_scenes.play(stage)
            stage.start()
            yield stage, left
        finally:
            stage.close()
            valkey.kill()


def take(browser: Browser, folder: Path) -> None:
    """The pictures of the documentation."""
    folder.mkdir(parents=True, exist_ok=True)
    converter = browser.new_page()
    with played() as (stage, left):
        wanted = [(name, address, _WIDE) for name, address in pages(left).items()]
        wanted.append(("phone", "#/dispatches", _PHONE))
        for name, address, (width, height) in wanted:
            page = browser.new_page(viewport={"width": width, "height": height})
            show(page, stage, name, address)
            png = base64.b64encode(page.screenshot()).decode()
            webp = converter.evaluate(_TO_WEBP, [png, _QUALITY])
            (folder / f"{name}.webp").write_bytes(base64.b64decode(webp))
            page.close()


def look(browser: Browser, folder: Path, names: list[str]) -> None:
    """Every page in every width, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    with played() as (stage, left):
        for name, address in pages(left).items():
            if names and name not in names:
                continue
            for width in WIDTHS:
                for scheme in ("light", "dark"):
                    page = browser.new_page(
                        viewport={"width": width, "height": 1080 if width > 1440 else 900}
                    )
                    page.emulate_media(color_scheme=scheme)
                    show(page, stage, name, address)
                    page.screenshot(path=folder / f"{name}-{width}-{scheme}.png")
                    page.close()


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, help="a folder for PNGs to look at")
    options.add_argument("names", nargs="*", help="only these pages, with --out")
    given = options.parse_args()
    with chromium() as browser:
        if given.out:
            look(browser, given.out, given.names)
        else:
            take(browser, FOLDER)


if __name__ == "__main__":
    main()
