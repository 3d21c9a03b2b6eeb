"""Programs behind the words in the cases' commands."""

from pathlib import Path

from bench.environments import Environments

_SCRIPTS = Path(__file__).parent / "peers"


def program_words(found: Environments) -> dict[str, str]:
    """Return commands by word; the bare scripts use the same SDK versions as modelfetch."""
    return {
        "modelfetch": found.ours.program_path("modelfetch"),
        "s5cmd": str(
            found.peers.site_packages / "s5cmd/bin/s5cmd"
        ),  # the script in bin/ is Python and starts this binary
        "rclone": found.peers.program_path("rclone"),
        "aws": found.peers.program_path("aws"),
        "kserve": f"{found.kserve.python} {_SCRIPTS / 'kserve_download.py'}",
        "boto3": f"{found.sdks.python} {_SCRIPTS / 'boto3_download.py'}",
        "gcs": f"{found.sdks.python} {_SCRIPTS / 'gcs_download.py'}",
    }
