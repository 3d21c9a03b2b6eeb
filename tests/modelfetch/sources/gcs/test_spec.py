"""Options of Google Cloud Storage sources, from the environment."""

import pytest

from modelfetch.sources import SourceOptions
from modelfetch.sources.gcs.spec import read_gcs_options


@pytest.mark.parametrize(
    ("host", "emulator"),
    [("localhost:9023", "http://localhost:9023"), ("https://e/", "https://e"), ("", None)],
)
def test_emulator_host_without_a_scheme_becomes_a_url(host: str, emulator: str | None) -> None:
    """A host without a scheme speaks http; an empty variable counts as unset."""
    assert read_gcs_options({"STORAGE_EMULATOR_HOST": host}, SourceOptions()).emulator == emulator
