from bench.cases import MODELFETCH, Goal
from bench.table import markdown, shown
from bench.verdicts import Row

FACTS = {
    "machine": {"cpu": "Some CPU", "processors": "2", "kernel": "6", "python": "3"},
    "sizes": "quick",
    "minutes": 1.5,
    "others": 0.25,
    "kserve_packages": 175_000_000,
    "skipped": {"far": "there is no Go"},
    "failed": {"small, peer": "failed (status 1):\ntraceback"},
}


def test_a_row_shows_what_was_judged_and_how() -> None:
    """Figures have their units, a ratio none."""
    ratio = Row("work", Goal(MODELFETCH, "peer", "wall", 0.8), 1.0, 2.0, 0.5, 0.1, "reached")
    memory = Row("work", Goal(MODELFETCH, "", "rss", 128 * 1024**2), 66 * 1024**2, None, 66 * 1024**2, 0.0, "reached")

    text = markdown(FACTS, [ratio, memory], {})

    assert "| work | peer | wall | 1.00 s | 2.00 s | 0.50 | 0.80 | reached |" in text
    assert "| work | - | rss | 66 MiB | - |  | 128 MiB | reached |" in text


def test_what_disturbed_the_figures_stands_above_them() -> None:
    """Who reads them must know what is missing, and how busy the machine was."""
    text = markdown(FACTS, [], {"small": {"peer": []}})

    assert "Other work on this machine took 25% of its processors" in text
    assert "far: skipped, there is no Go." in text
    assert "small, peer: failed, failed (status 1):" in text
    assert "traceback" not in text
    assert "| peer | not measured |" in text


def test_figures_have_units() -> None:
    """Each metric has its own."""
    assert [shown("packages", 9e7), shown("requests", 1.0), shown("cpu", 1.0), shown("wall", None)] == [
        "90 MB", "1", "1.00 s", "-",
    ]  # fmt: skip
