"""The words of the cases' commands: which program each stands for."""

from pathlib import Path

from bench.environments import Environments

_SCRIPTS = Path(__file__).parent / "peers"


def words(found: Environments) -> dict[str, str]:
    """Commands by word; the bare scripts run on the versions of the SDKs that modelfetch has."""
    return {
        "modelfetch": found.ours.program("modelfetch"),
        "s5cmd": str(found.peers.packages / "s5cmd/bin/s5cmd"),  # the one in bin/ is Python, and starts this one
        "rclone": found.peers.program("rclone"),
        "aws": found.peers.program("aws"),
        "kserve": f"{found.kserve.python} {_SCRIPTS / 'kserve_download.py'}",
        "boto3": f"{found.sdks.python} {_SCRIPTS / 'boto3_download.py'}",
        "gcs": f"{found.sdks.python} {_SCRIPTS / 'gcs_download.py'}",
    }
