import json
import re
import shutil
import subprocess
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
        rows.append({**seen, "loss": 7 / step**0.1, "learning_rate": 3e-4 * step / steps, "grad_norm": 1 / step})
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
                "phenomena": {"ergative_marker": {"accuracy": 56.6, "pairs": 53, "ties": 1}},
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
        "continuations": [{"prompt": "एक दिन राजा", "continuation": f"ने कहा {SPITEFUL}"}],
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
        "540,000 words seen in 0.74 epochs",
        "0.902 95 %: 0.889 to 0.918",
        "25.0 % below its 1.203 [1.100, 1.300]",
        "bits an akshara 0.902 [0.889, 0.918]",
        "perplexity a word 1,234.5 [1,000.0, past the range of a float]",
        "ergative marker 56.6 49.1 53 1",
        "chck_1M 1,000,070 30 past the range of a float",
        "85.2 [82.0, 88.7] %",
        "as a model without preferences does: 47.3 [44.0, 50.1] %",
        "ergative marker: without ने -&gt; with ने 51.9 27 51.9",
        "1.23 GB",
        "best, of step 380, averaged",
        duration(3750.0),
        "Loss is not falling.",
        "एक दिन राजा ने कहा",
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
    """A run of 30,000 steps has a report below 3 MB."""
    report = write_report(finished_run(tmp_path / "run", steps=30_000), title="x")
    assert report.stat().st_size < 3_000_000


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


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_shows_it_without_an_error(tmp_path: Path) -> None:
    """Headless Chromium lays the page out, writes nothing to its console, and finds the figures and four drawings."""
    report = write_report(finished_run(tmp_path / "run"), title="quickstart")
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", report.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("<svg") == 4
    assert "एक दिन राजा" in done.stdout


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
