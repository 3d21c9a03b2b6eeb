from bench.cases import MODELFETCH, Goal
from bench.table import format_figure, render_markdown
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
    """Figures are shown with units, ratios without."""
    ratio = Row("work", Goal(MODELFETCH, "peer", "wall", 0.8), 1.0, 2.0, 0.5, 0.1, "reached")
    memory = Row("work", Goal(MODELFETCH, "", "rss", 128 * 1024**2), 66 * 1024**2, None, 66 * 1024**2, 0.0, "reached")

    text = render_markdown(FACTS, [ratio, memory], {})

    assert "| work | peer | wall | 1.00 s | 2.00 s | 0.50 | 0.80 | reached |" in text
    assert "| work | - | rss | 66 MiB | - |  | 128 MiB | reached |" in text


def test_what_disturbed_the_figures_stands_above_them() -> None:
    """Other load, skipped and failed cases are listed above the table."""
    text = render_markdown(FACTS, [], {"small": {"peer": []}})

    assert "Other work on this machine took 25% of its processors" in text
    assert "far: skipped, there is no Go." in text
    assert "small, peer: failed, failed (status 1):" in text
    assert "traceback" not in text
    assert "| peer | not measured |" in text


def test_figures_have_units() -> None:
    """Each metric is formatted with its own unit."""
    figures = {"packages": 9e7, "requests": 1.0, "cpu": 1.0, "wall": None}

    assert [format_figure(metric, figure) for metric, figure in figures.items()] == ["90 MB", "1", "1.00 s", "-"]
