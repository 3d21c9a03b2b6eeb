"""Trial of a pull from a hostile store; right outcomes are the correct model or a refusal without leftovers."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from modelfetch.errors import BUG_CODE
from testkit.cli_runner import CliRunner, Run
from testkit.file_tree import directory_digest, read_files, write_files
from testkit.scripted_server import Responder, ScriptedServer, ServerRequest, ServerResponse
from testkit.warm_process import WarmProcess
from tests.faults.campaign_report import Row

PEAK_LIMIT_BYTES = 256 * 1024**2  # 64 MiB for buffers, as much for a response, the rest for Python and an SDK
RUN_SECONDS = 60
MANIFEST = ".modelfetch-manifest"

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class HostileCase:
    """A hostile store.

    Attributes:
        fault: the table's row.
        name: the peculiarity of the case.
        scheme: s3, gs, http or file.
        responses: the server's responses; for `file`, the files present.
        codes: the allowed exit codes.
        message_part: text required in the message.
        model: the expected model if the exit code is 0.
        source: path of the source, below the bucket, the server or the directory.
        args: more arguments.
        full_form_only: whether the short form leaves out the case, as a slow case.
    """

    fault: str
    name: str
    scheme: str
    responses: Sequence[Responder] | Files
    codes: tuple[int, ...] = (65,)
    message_part: str = ""
    model: Files = field(default_factory=dict)
    source: str = "p/"
    args: tuple[str, ...] = ()
    full_form_only: bool = False

    def __str__(self) -> str:
        return f"{self.fault}: {self.name} ({self.scheme})"


@dataclass(frozen=True)
class HostileVerdict:
    """Outcome of a case with its flaws."""

    case: HostileCase
    code: int
    peak_bytes: int
    flaws: tuple[str, ...]

    @property
    def report_row(self) -> Row:
        """Return the verdict as a row of the table."""
        wrong = int(bool(self.flaws))
        right = int(not wrong and self.code == 0)
        return Row(self.case.fault, 1, right, 1 - right - wrong, wrong, peak_bytes=self.peak_bytes)

    def __str__(self) -> str:
        return f"{self.case}: exit code {self.code}: {'; '.join(self.flaws)}"


def try_hostile_case(
    case: HostileCase, scripted_server: ScriptedServer, forker: WarmProcess, directory: Path
) -> HostileVerdict:
    """Pull into a directory below `directory` and judge."""
    for folder in ("home", "source", "place"):
        (directory / folder).mkdir(parents=True)
    (directory / "place" / "theirs").write_bytes(b"theirs")
    with closing(CliRunner(directory / "home")) as cli:
        try:
            run, peak = forker(
                cli,
                *_make_arguments(case, scripted_server, directory),
                env=_make_environment(case, scripted_server),
                timeout=RUN_SECONDS,
            )
        except TimeoutError as error:
            return HostileVerdict(case, -1, 0, (str(error),))
    flaws = [
        *_check_output(case, run),
        *_check_disk(case, run, directory),
        *([f"{peak} bytes of memory"] if peak > PEAK_LIMIT_BYTES else []),
    ]
    return HostileVerdict(case, run.code, peak, tuple(flaws))


def _make_arguments(case: HostileCase, scripted_server: ScriptedServer, directory: Path) -> list[str]:
    if isinstance(case.responses, Mapping):
        write_files(directory / "source", case.responses)
        source = f"{directory}/source/{case.source}"
    else:
        scripted_server.respond_with(_answer_no_manifest, *case.responses)
        source = f"{scripted_server.url}/{case.source}" if case.scheme == "http" else f"{case.scheme}://b/{case.source}"
    return ["pull", source, f"{directory}/place/m", "--output", "json", *case.args]


def _answer_no_manifest(request: ServerRequest) -> ServerResponse | None:
    return ServerResponse(404, body=b"{}") if request.path.endswith(MANIFEST) else None


def _make_environment(case: HostileCase, scripted_server: ScriptedServer) -> dict[str, str]:
    return {**scripted_server.s3_env, **scripted_server.gcs_env, "MODELFETCH_RETRIES": "1"}


def _check_output(case: HostileCase, run: Run) -> list[str]:
    """Return the flaws of the output and the exit code."""
    flaws = [] if run.code in case.codes else [f"expected {case.codes}, it said: {run.all_output[-500:]}"]
    if run.code == BUG_CODE or "Traceback" in run.all_output:
        flaws.append(f"a bug: {run.all_output[-1000:]}")
    hidden = [char for char in run.all_output if not char.isprintable() and char != "\n"]
    if hidden:
        flaws.append(f"said {hidden[:5]!r}")
    if run.code > 0 and not flaws:
        flaws += _check_failure(case, run)
    return flaws


def _check_failure(case: HostileCase, run: Run) -> list[str]:
    error = run.error
    flaws = [f"no {part} in {error}" for part in ("message", "hint", "reason") if not error.get(part)]
    if case.message_part not in error["message"]:
        flaws.append(f"{case.message_part!r} is not in {error['message']!r}")
    if run.stdout:
        flaws.append(f"said {run.stdout[:200]!r} on stdout")
    if json.loads(run.termination)["code"] != run.code:
        flaws.append(f"left {run.termination[:200]!r} for Kubernetes")
    return flaws


def _check_disk(case: HostileCase, run: Run, directory: Path) -> list[str]:
    """Return the flaws of the files on the disk."""
    present = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }
    expected = {"home/stdout", "home/stderr", "home/termination-log", "place/theirs"}
    unexpected = {
        path for path in present - expected if not path.startswith(("place/m/", "place/.modelfetch/", "source/"))
    }
    flaws = [
        f"{path} has come to lie beside the model"
        for path in sorted(unexpected - {"place/m", "place/m.modelfetch-receipt"})
    ]
    model, single = directory / "place" / "m", unexpected & {"place/m"}
    if run.code != 0:
        published = single or {path for path in present if path.startswith("place/m/") and "/.modelfetch/" not in path}
        return [*flaws, *(f"{path} is published" for path in sorted(published))]
    found = {"m": model.read_bytes()} if single else read_files(model)
    if found != dict(case.model):
        flaws.append(f"published {sorted(found)}, not {sorted(case.model)}, or with another content")
    if not single and run.receipt["digest"] != directory_digest(case.model):
        flaws.append("the receipt is of something else")
    return flaws
