"""The README, the pages in `docs/`, and the site that is made of them."""

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers.project import ROOT

import keras_alexnet
import porting
from keras_alexnet.commands.app import app as keras_alexnet_app
from porting.commands.app import app as porting_app

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
PUBLIC = {f"{p.__name__}.{name}" for p in (keras_alexnet, porting) for name in p.__all__}
MODULES = {"keras_alexnet.lrn"}
PROGRAMS: dict[str, Any] = {
    "keras-alexnet": typer.main.get_command(keras_alexnet_app),
    "python -m porting": typer.main.get_command(porting_app),
}


def _texts(*pages: Path) -> str:
    """Return pages without their blocks of code."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as a code host and the site make them."""
    heads = re.findall(r"^#+ (.+)$", _texts(page), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_reference_has_every_public_name() -> None:
    shown = re.findall(r"^::: (\S+)$", _texts(*(DOCS / "reference").glob("*.md")), re.M)
    assert len(set(shown)) == len(shown)
    assert set(shown) == PUBLIC | MODULES


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_to_what_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _texts(page)):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.is_file(), target
        assert not anchor or anchor in _anchors(place), target


def test_every_page_is_reached_from_the_navigation() -> None:
    listed = re.findall(r": (\S+\.md)$", (DOCS / "site" / "mkdocs.yml").read_text(), re.M)
    assert set(listed) - {"benchmarks/RESULTS.md"} == {
        page.relative_to(DOCS).as_posix() for page in PAGES
    }


def test_the_readme_says_what_the_tables_of_networks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = importlib.import_module("coverage_table")
    document = script.DOCUMENT.read_text(encoding="utf-8")
    said = script.summary(document)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{script.BEGIN}\n{said}\n{script.END}" in readme, "run `make coverage`"
    worse = document.replace("| torchvision:vgg11 |", "| torchvision:vgg11 | 9.9e-06 |")
    assert worse != document
    with pytest.raises(ValueError, match="argument"):  # a row that is no row
        script.summary(worse)


def test_the_page_of_the_study_says_what_its_presets_do() -> None:
    page = (DOCS / "cifar100-study.md").read_text(encoding="utf-8")
    shown = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `cifar100")}
    assert [*shown] == keras_alexnet.list_presets("cifar100-study-*")
    for name, row in shown.items():
        preset = keras_alexnet.find_preset(name)
        experiment, reported = preset.experiment, preset.reported
        assert reported is not None
        assert reported.top1 is not None
        assert [cell.strip() for cell in row.split("|")[2:-1]] == [
            experiment.augmentation.in_words(),
            "0..1" if experiment.mean is None else "normalised",
            str(experiment.batch_size),
            f"{experiment.optimizer} {experiment.learning_rate:g}",
            str(experiment.epochs),
            f"{100 * reported.top1:.1f} %",
            f"{reported.macro_f1:g}",
        ]


def _shown_commands() -> list[tuple[str, str]]:
    """Page and line of every command of ours in a block of code, and in the programs' own help."""
    found = []
    for page in (ROOT / "README.md", *PAGES, ROOT / "benchmarks" / "RESULTS.md"):
        for block in re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M):
            found += [(page.name, line) for line in block.replace("\\\n", " ").splitlines()]
    for program in PROGRAMS.values():
        found += [("--help", line.strip()) for line in (program.help or "").splitlines()]
    return [(place, line) for place, line in found if line.startswith(tuple(PROGRAMS))]


@pytest.mark.parametrize(("place", "line"), _shown_commands())
def test_commands_are_those_that_there_are(place: str, line: str) -> None:
    (program,) = (name for name in PROGRAMS if line.startswith(name))
    words = shlex.split(line.removeprefix(program), comments=True)
    known = {option for p in PROGRAMS[program].params for option in p.opts}
    command = PROGRAMS[program].commands.get(words[0])
    if command is None:
        assert words[0] in {*known, "--help"}, words[0]
        return
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    assert not [word for word in words if word.startswith("--") and word not in known]


def test_both_programs_say_how_they_are_used() -> None:
    assert [place for place, _ in _shown_commands()].count("--help") == 2 * len(PROGRAMS)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, or a skip where its programs are missing."""
    if not all(map(importlib.util.find_spec, ("mkdocs", "material", "mkdocstrings"))):
        pytest.skip("no mkdocs here: pip install 'keras-alexnet[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = ["mkdocs", "build", "--strict", "--config-file", DOCS / "site" / "mkdocs.yml"]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command), "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_documents_every_public_name(site: Path) -> None:
    inventory = (site / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory.split(b"\n", 4)[4]).decode().splitlines()
    entries: dict[str, Any] = {}
    for line in lines:
        name, _, _, uri, _ = line.split(" ", 4)
        entries[name] = uri.replace("$", name)
    for name in PUBLIC | MODULES:
        page, _, anchor = entries[name].partition("#")
        assert f'id="{anchor}"' in (site / page).read_text(encoding="utf-8"), name


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert site / "benchmarks" / "RESULTS.html" in pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*?src=\"?([^\" >]+)", text)
        loaded += re.findall(r"<link(?![^>]*canonical)[^>]*?href=\"?([^\" >]+)", text)
        assert loaded
        assert not [place for place in loaded if re.match(r"(\w+:)?//", place)], page.name
