import json
import re
import shutil
import subprocess
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindi_babylm.console import duration
from hindi_babylm.evaluation.pseudo_likelihood import pseudo_figures
from hindi_babylm.reporting.curves import averaged, draw_curves
from hindi_babylm.reporting.report import figure, floors, write_report
from hindi_babylm.storage import RunFolder, read_json, write_json

SPITEFUL = "<script>alert('राम')</script>"
INTERVAL = {"value": 0.9021, "low": 0.889, "high": 0.918}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def events(steps: int) -> list[dict[str, Any]]:
    """Return the events of a run of so many steps with an evaluation in every tenth."""
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        seen = {"step": step, "words_seen": 70.5 * step}
        figures = {"learning_rate": 3e-4 * step / steps, "grad_norm": 1 / step, "tokens_per_second": 90.0 + step % 20}
        rows.append({**seen, "loss": 7 / step**0.1, **figures})
        if step % 10 == 0:
            rows.append({**seen, "eval_loss": 7.1 / step**0.1, "eval_perplexity": 300 - step / steps})
    return rows


def finished_run(path: Path, *, steps: int = 40) -> RunFolder:
    """Write the files of a finished run whose texts are of the worst kind."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.metrics.write_text("".join(json.dumps(event) + "\n" for event in events(steps)), encoding="utf-8")
    counts = {"documents": 3, "words": 400, "bytes": 5000, "aksharas": 900, "tokens": 800}
    scores = {
        **counts,
        **dict.fromkeys(("bits_per_byte", "bits_per_character", "bits_per_akshara"), INTERVAL),
        "word_perplexity": {"value": 1234.5, "low": 1000.0, "high": None},
        "token_perplexity": {"value": 55.0, "low": 50.0, "high": 60.0},
        "unigram_bits_per_byte": {"value": 1.2028, "low": 1.1, "high": 1.3},
        "by_source": {SPITEFUL: {"documents": 3, "bytes": 5000, "bits_per_byte": 0.9}},
    }
    results = {
        "model": {
            **{"architecture": "llama", "parameters": 5_261_568, "which": "best", "step": 380},
            "weights": "ema",
        },
        "training": {
            **{"steps": steps, "epochs": 0.74, "words_seen": 540_000.0, "tokens": 777_240, "seconds": 3750.0},
            **{"tokens_per_second": 3500.0, "precision": "bf16", "peak_memory_bytes": 1_230_000_000},
        },
        "advice": [{"step": 3, "symptom": "plateau", "text": f"Loss is not falling. {SPITEFUL}"}],
        "validation": scores,
        "test": scores,
        "minimal_pairs": {
            "hindi_pairs_pud": {
                "macro": {"value": 85.2, "low": 82.0, "high": 88.7},
                "phenomena": {"ergative_marker": {"accuracy": 56.6, "low": 43.4, "high": 69.8, "pairs": 53, "ties": 1}},
                "per_byte": {"macro": {"value": 84.1, "low": 81.0, "high": 87.0}},
                "length_only": {"macro": {"value": 47.3, "low": 44.0, "high": 50.1}},
                "halves": {
                    "ergative_marker": {
                        "with ने / without ने": {
                            "with ने -> without ने": {"accuracy": 61.5, "pairs": 26, "ties": 1},
                            "without ने -> with ने": {"accuracy": 51.9, "pairs": 27, "ties": 0},
                            "minimum": 51.9,
                        }
                    }
                },
                "trigram": {
                    "macro": {"value": 86.1, "low": 83.1, "high": 89.2},
                    "phenomena": {"ergative_marker": {"accuracy": 49.1, "pairs": 53, "ties": 0}},
                },
            }
        },
        "milestones": [
            {"name": "chck_1M", "words": 10**6, "words_seen": 1000070.5, "step": 30, "eval_perplexity": None}
        ],
        "continuations": [
            {"prompt": "एक दिन राजा", "continuation": f" ने कहा {SPITEFUL}"},
            {"prompt": "उसने कह", "continuation": "ानी सुनी"},
        ],
    }
    entry = {**counts, "examples": []}
    corpus = {
        "read": counts,
        "kept": {split: {SPITEFUL: counts} for split in ("train", "validation", "test")},
        "dropped": {"duplicate": entry},
        "changed": {"spaces": {**entry, "touched": 1}},
    }
    environment = {
        **{"hindi_babylm": "0.1.0", "commit": "0123456789abcdef", "python": "3.11", "platform": "Linux"},
        **{
            "cpu": {"cores": 2},
            "gpus": [],
            "processes": 1,
            "precision": "bf16",
            "sha256": {"tokenizer/tokenizer.json": "ab" * 32},
            "packages": {"torch": "2.13.0"},
            "command": ["run.py", "x"],
        },
    }
    write_json(folder.results, results)
    write_json(folder.corpus, corpus)
    write_json(folder.environment, environment)
    write_json(folder.recipe, {"corpus": {"sources": [{"path": SPITEFUL}]}, "model": {"block_size": 256}})
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the report of a finished run."""
    folder = finished_run(tmp_path_factory.mktemp("report") / "run")
    return write_report(folder, title="quickstart").read_text(encoding="utf-8")


def test_the_figures_of_the_run_are_in_the_report(page: str) -> None:
    """Each kind of figure is there as results.json has it, with interval and unit."""
    text = re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<[^>]+>", " ", page, flags=re.DOTALL))
    for told in (
        "5,261,568 parameters",
        "bits a byte, unigram 25.0 % fewer bits 0.902 [0.889, 0.918] 1.203 [1.100, 1.300]",
        "hindi_pairs_pud, %, trigram 0.9 points LESS 85.2 [82.0, 88.7] 86.1 [83.1, 89.2]",
        "In 1 of 2 rows the counts are better than this model.",
        "540,000 words seen in 0.74 epochs",
        "0.902 95 %: 0.889 to 0.918",
        "25.0 % below its 1.203 [1.100, 1.300]",
        "bits an akshara 0.902 [0.889, 0.918]",
        "perplexity a word 1,234.5 [1,000.0, past the range of a float]",
        "ergative marker 56.6 [43.4, 69.8] 49.1 53 1",
        "chck_1M 1,000,070 30 past the range of a float",
        "85.2 [82.0, 88.7] %",
        "as a model without preferences does: 47.3 [44.0, 50.1] %",
        "ergative marker: without ने -&gt; with ने 51.9 27 51.9",
        "1.23 GB",
        "best, of step 380, averaged",
        duration(3750.0),
        "Loss is not falling.",
        "एक दिन राजा ने कहा",
        "3 documents, 400 words, 5,000 bytes",
        "3 400 5,000 900 800",
        "precision bf16",
        "run.py x",
        "ab" * 32,
        "duplicate 3 400 5,000",
        "spaces 1 400 5,000",
        "block_size 256",
        "torch 2.13.0",
    ):
        assert told in text, told


def test_the_report_asks_for_nothing_from_elsewhere(page: str) -> None:
    """Nothing is loaded: no script, no address but names of XML, no style or picture from another file."""
    assert "<script" not in page
    addresses = set(re.findall(r"""["'(](?:https?:)?//[^"')\s]*""", page))
    assert all(address[1:].startswith(("http://www.w3.org/", "http://purl.org/")) for address in addresses), addresses
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', page)) <= {"data:,"}
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_texts_are_escaped(page: str) -> None:
    """A source, a document, an advice or a recipe cannot put markup into the page."""
    assert page.count("&lt;script&gt;") >= 6


def test_the_ids_of_drawings_differ(page: str) -> None:
    """No drawing takes a clip or a marker of another one, for an id stands once in the page."""
    ids = re.findall(r'\bid="([^"]+)"', page)
    shared = {name for name in ids if ids.count(name) > 1}
    assert not {name for name in shared if f"#{name}" in page}


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of the moment is in a report."""
    pages = [write_report(finished_run(tmp_path / name), title="x").read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    """A run of 100,000 steps on 200 sources, each with a long name, has a report below 3 MB."""
    folder = finished_run(tmp_path / "run", steps=100_000)
    names = [f"{'/folder' * 20}/source_{number}.jsonl.zst" for number in range(200)]
    corpus, results, recipe = (read_json(path) for path in (folder.corpus, folder.results, folder.recipe))
    for split, entries in corpus["kept"].items():
        corpus["kept"][split] = dict.fromkeys(names, entries[SPITEFUL])
    for split in ("validation", "test"):
        results[split]["by_source"] = dict.fromkeys(names, results[split]["by_source"][SPITEFUL])
    corpus["dropped"] = {f"{name} max_words": corpus["dropped"]["duplicate"] for name in names}
    recipe["corpus"]["sources"] = [{"path": name, "weight": 1.0} for name in names]
    for path, content in ((folder.corpus, corpus), (folder.results, results), (folder.recipe, recipe)):
        write_json(path, content)
    report = write_report(folder, title="x")
    assert report.stat().st_size < 3_000_000
    assert "160 more sources" in report.read_text(encoding="utf-8")


def test_a_run_without_evaluations_and_with_a_loss_of_nan() -> None:
    """There is no curve without a point, and what is not finite is left out of a curve."""
    rows: list[dict[str, Any]] = [
        {"step": step, "loss": loss, "learning_rate": 1e-3, "grad_norm": 0.0}
        for step, loss in enumerate([5.0, float("nan"), 3.0], start=1)
    ]
    curves = {curve.title: curve for curve in draw_curves(rows)}
    assert set(curves) == {"Loss", "Learning rate"}
    assert curves["Loss"].description == "Loss over step: train from 5 to 3"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(1, 50))
def test_averages_keep_order_and_sum(values: list[float], points: int) -> None:
    """Means of neighbours are what a plain loop over equal groups gives."""
    x, y = averaged(np.arange(len(values), dtype=float), np.array(values), points=points)
    groups = np.array_split(np.array(values), min(points, len(values)))
    assert len(y) <= points
    assert y == pytest.approx([sum(group) / len(group) for group in groups], abs=1e-6)
    assert (np.diff(x) > 0).all()


def test_each_floor_is_compared() -> None:
    """The share below a floor is that of the floor, and every n-gram has one."""
    test = {
        "bits_per_byte": INTERVAL,
        "unigram_bits_per_byte": {"value": 1.8042},
        "trigram_bits_per_byte": {"value": 0.8},
    }
    found = {name: share for name, (_, share) in floors(test)}
    assert found["unigram"] == pytest.approx(0.5)
    assert found["trigram"] < 0
    assert figure(INTERVAL) == "0.902 [0.889, 0.918]"


def test_a_drawn_throughput_is_tokens_over_time() -> None:
    """Steps that are drawn as one have the tokens of all over the time of all, not the mean of their rates."""
    rates = [100.0, 300.0] * 600
    rows = [
        {"step": step, "loss": 1.0, "learning_rate": 1.0, "grad_norm": 1.0, "tokens_per_second": rate}
        for step, rate in enumerate(rates, start=1)
    ]
    (curve,) = [curve for curve in draw_curves(rows) if curve.title == "Throughput"]
    both = 2 * 1000 / (1000 / 100 + 1000 / 300)  # two steps of 1000 tokens
    assert both == pytest.approx(150)
    assert curve.description == f"Throughput over step: train from {both:.4g} to {both:.4g}"


def test_a_continuation_is_cut_between_aksharas(page: str) -> None:
    """A vowel sign that the model puts on the prompt's last letter stays with the letter, and no space is added."""
    assert '<blockquote lang="hi"><b>उसने कहा</b>नी सुनी</blockquote>' in page
    assert '<blockquote lang="hi"><b>एक दिन राजा</b> ने कहा' in page


def test_drawings_have_a_name_and_no_devanagari(page: str) -> None:
    """Each drawing says in words what it shows, and Hindi, which no SVG shapes everywhere, stands in HTML alone."""
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 5
    for drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.get("role") == "img"
        assert re.search(r" over words seen: .* from .* to ", root.get("aria-label", ""))
        assert not re.search("[\u0900-\u097f]", drawing)


def test_tables_say_what_their_cells_belong_to(page: str) -> None:
    """Every header cell has a scope and every row a header."""
    headers = re.findall(r"<th\b[^>]*>", page)
    assert headers
    assert all('scope="col"' in header or 'scope="row"' in header for header in headers)
    assert '<th scope="col"></th>' not in page
    for body in re.findall(r"<tbody>(.*?)</tbody>", page, flags=re.DOTALL):
        assert all(row.startswith('<th scope="row">') for row in re.findall(r"<tr>(.*)", body))


class Recorder(BaseHTTPRequestHandler):
    """A proxy that answers nothing and remembers what it was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    do_POST = do_CONNECT = do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def recording_proxy() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a proxy and the list of what it was asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Recorder,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def chromium(folder: Path, page: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Open a page in headless Chromium."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", *flags, page.as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@needs_chromium
def test_a_browser_shows_it_without_an_error_or_a_request(tmp_path: Path) -> None:
    """Headless Chromium writes nothing to its console, asks nobody for anything, and finds figures and drawings."""
    report = write_report(finished_run(tmp_path / "run"), title="quickstart")
    with recording_proxy() as (proxy, asked):
        done = chromium(tmp_path, report, f"--proxy-server={proxy}", "--dump-dom")
        assert [address for address in asked if "google" not in address] == []  # but for the browser's own affairs
        assert "CONSOLE" not in done.stderr
        assert done.stdout.count("<svg") == 5
        assert "एक दिन राजा" in done.stdout
        # The same two checks see a page that asks for a picture and logs an error.
        page = report.read_text(encoding="utf-8")
        guilty = '<img src="http://elsewhere.test/x.png"><script>console.error("wrong")</script>'
        report.write_text(page.replace("</main>", f"{guilty}</main>"), encoding="utf-8")
        done = chromium(tmp_path, report, f"--proxy-server={proxy}", "--dump-dom")
        assert "http://elsewhere.test/x.png" in asked
        assert "CONSOLE" in done.stderr


@needs_chromium
def test_a_phone_shows_it_without_scrolling_sideways(tmp_path: Path) -> None:
    """At 360 pixels nothing but a wide table's own box is wider than the page, and drawings are as wide as it."""
    write_report(finished_run(tmp_path / "run"), title="a_very_long_name_of_a_run_that_fills_more_than_one_line")
    holder = tmp_path / "phone.html"
    script = """
      const page = frame.contentDocument, wide = [...page.querySelectorAll("main *, header *")].filter(
        e => !e.closest(".scroll, svg") && e.getBoundingClientRect().right > 360);
      document.body.dataset.found = JSON.stringify({
        page: page.documentElement.scrollWidth,
        wide: wide.map(e => e.tagName),
        drawing: page.querySelector("svg").getBoundingClientRect().width});"""
    frame = "<iframe id=frame src=run/report.html style='border:0;width:360px;height:800px'></iframe>"
    holder.write_text(f"<body>{frame}<script>frame.onload = () => {{{script}}}</script>", encoding="utf-8")
    done = chromium(tmp_path, holder, "--allow-file-access-from-files", "--hide-scrollbars", "--dump-dom")
    (found,) = re.findall(r'data-found="([^"]*)"', done.stdout)
    measured = json.loads(found.replace("&quot;", '"'))
    assert measured["page"] == 360
    assert measured["wide"] == []
    assert 300 < measured["drawing"] <= 360


@needs_chromium
def test_what_is_folded_is_printed(tmp_path: Path) -> None:
    """On paper the recipe is open: one of many keys takes more pages than one of few."""
    pages = []
    for keys in (1, 300):
        folder = finished_run(tmp_path / str(keys))
        write_json(folder.recipe, {"model": {f"key_{number}": number for number in range(keys)}})
        pdf = tmp_path / f"{keys}.pdf"
        chromium(tmp_path, write_report(folder, title="x"), f"--print-to-pdf={pdf}")
        pages.append(len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())))
    assert 0 < pages[0] < pages[1] - 4


def test_a_suite_without_halves_has_a_report(tmp_path: Path) -> None:
    """Pairs of one's own have no change in both directions, and so no table of them."""
    folder = finished_run(tmp_path / "run")
    results = read_json(folder.results)
    del results["minimal_pairs"]["hindi_pairs_pud"]["halves"]
    write_json(folder.results, results)
    page = write_report(folder, title="mine").read_text(encoding="utf-8")
    assert "macro average 85.2" in page
    assert "Changes in both directions" not in page


def test_a_masked_model_has_a_report(tmp_path: Path) -> None:
    """Figures of a pseudo-likelihood stand under their names, against no floor, and nothing is continued."""
    folder = finished_run(tmp_path / "run")
    results = read_json(folder.results)
    del results["continuations"]
    (entry,) = results["milestones"]
    entry["masked_token_perplexity"] = entry.pop("eval_perplexity")
    for split in ("validation", "test"):
        results[split] = pseudo_figures(results[split], scored=700)
    write_json(folder.results, results)
    page = write_report(folder, title="masked").read_text(encoding="utf-8")
    assert "Pseudo bits a byte, test" in page
    assert "Against the" not in page
    assert "Continuations" not in page
    assert "700 of 800 tokens scored" in page
    assert "predicted tokens" not in page
    assert "validation perplexity, masked tokens" in page
    assert "nats a masked token" in page
