"""One pull from a store that means harm, and what may come of it: the right model, or a refusal that leaves nothing."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from modelfetch.errors import BUG_CODE
from testkit import tree
from testkit.cli import Cli, Run
from testkit.liar import Answer, Asked, Liar, Speaker
from testkit.warm import Warm
from tests.faults.campaign_report import Row

PEAK = 256 * 1024**2  # bytes: 64 MiB are for buffers, as much for a reply, the rest for Python and an SDK
SECONDS = 60
MANIFEST = ".modelfetch-manifest.json"

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Case:
    """A hostile store.

    Attributes:
        fault: the row of the table that it belongs to.
        name: what is special about it.
        scheme: s3, gs, http or file.
        say: what the server says; for `file`, the files that are there.
        codes: the exit codes that may come of it.
        said: what the message must hold.
        model: what must be published, if the code is 0.
        source: the path of the source, below the bucket, the server or the directory.
        args: more of the command line.
        long: whether it is for the full form only: it takes seconds.
    """

    fault: str
    name: str
    scheme: str
    say: Sequence[Speaker] | Files
    codes: tuple[int, ...] = (65,)
    said: str = ""
    model: Files = field(default_factory=dict)
    source: str = "p/"
    args: tuple[str, ...] = ()
    long: bool = False

    def __str__(self) -> str:
        return f"{self.fault}: {self.name} ({self.scheme})"


@dataclass(frozen=True)
class Verdict:
    """What came of a case: its flaws, if it went wrong."""

    case: Case
    code: int
    peak: int
    flaws: tuple[str, ...]

    @property
    def row(self) -> Row:
        """For the table."""
        wrong = int(bool(self.flaws))
        right = int(not wrong and self.code == 0)
        return Row(self.case.fault, 1, right, 1 - right - wrong, wrong, peak_bytes=self.peak)

    def __str__(self) -> str:
        return f"{self.case}: exit code {self.code}: {'; '.join(self.flaws)}"


def attempt(case: Case, liar: Liar, forker: Warm, at: Path) -> Verdict:
    """Pull, into a directory of its own below `at`."""
    for folder in ("home", "source", "place"):
        (at / folder).mkdir(parents=True)
    (at / "place" / "theirs").write_bytes(b"theirs")
    with closing(Cli(at / "home")) as cli:
        try:
            run, peak = forker(cli, *_arguments(case, liar, at), env=_environment(case, liar), timeout=SECONDS)
        except TimeoutError as error:
            return Verdict(case, -1, 0, (str(error),))
    flaws = [*_told(case, run), *_left(case, run, at), *([f"{peak} bytes of memory"] if peak > PEAK else [])]
    return Verdict(case, run.code, peak, tuple(flaws))


def _arguments(case: Case, liar: Liar, at: Path) -> list[str]:
    if isinstance(case.say, Mapping):
        tree.write(at / "source", case.say)
        source = f"{at}/source/{case.source}"
    else:
        liar.say(_no_manifest, *case.say)
        source = f"{liar.url}/{case.source}" if case.scheme == "http" else f"{case.scheme}://b/{case.source}"
    return ["pull", source, f"{at}/place/m", "--output", "json", *case.args]


def _no_manifest(asked: Asked) -> Answer | None:
    return Answer(404, body=b"{}") if asked.path.endswith(MANIFEST) else None


def _environment(case: Case, liar: Liar) -> dict[str, str]:
    return {**liar.s3_env, **liar.gcs_env, "MODELFETCH_RETRIES": "1"}


def _told(case: Case, run: Run) -> list[str]:
    """What is wrong with what it said."""
    flaws = [] if run.code in case.codes else [f"expected {case.codes}, it said: {run.said[-500:]}"]
    if run.code == BUG_CODE or "Traceback" in run.said:
        flaws.append(f"a bug: {run.said[-1000:]}")
    hidden = [char for char in run.said if not char.isprintable() and char != "\n"]
    if hidden:
        flaws.append(f"said {hidden[:5]!r}")
    if run.code > 0 and not flaws:
        flaws += _failure(case, run)
    return flaws


def _failure(case: Case, run: Run) -> list[str]:
    error = run.error
    flaws = [f"no {part} in {error}" for part in ("message", "hint", "reason") if not error.get(part)]
    if case.said not in error["message"]:
        flaws.append(f"{case.said!r} is not in {error['message']!r}")
    if run.stdout:
        flaws.append(f"said {run.stdout[:200]!r} on stdout")
    if json.loads(run.termination)["code"] != run.code:
        flaws.append(f"left {run.termination[:200]!r} for Kubernetes")
    return flaws


def _left(case: Case, run: Run, at: Path) -> list[str]:
    """What is wrong with what is on the disk now."""
    there = {path.relative_to(at).as_posix() for path in at.rglob("*") if not path.is_dir() or path.is_symlink()}
    ours = {"home/stdout", "home/stderr", "home/termination-log", "place/theirs"}
    beside = {path for path in there - ours if not path.startswith(("place/m/", "place/.modelfetch/", "source/"))}
    flaws = [
        f"{path} has come to lie beside the model" for path in sorted(beside - {"place/m", "place/m.modelfetch.json"})
    ]
    model, single = at / "place" / "m", beside & {"place/m"}
    if run.code != 0:
        published = single or {path for path in there if path.startswith("place/m/") and "/.modelfetch/" not in path}
        return [*flaws, *(f"{path} is published" for path in sorted(published))]
    found = {"m": model.read_bytes()} if single else tree.read(model)
    if found != dict(case.model):
        flaws.append(f"published {sorted(found)}, not {sorted(case.model)}, or with another content")
    if not single and run.receipt["digest"] != tree.digest(case.model):
        flaws.append("the receipt is of something else")
    return flaws
