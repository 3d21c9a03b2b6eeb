"""The command line: flags → settings → use case → rendered result → exit code. The only home of Typer."""

import inspect as signatures
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args
from urllib.parse import urlsplit

import typer

from modelfetch import __version__, signals
from modelfetch.cli import console, settings, signing_options
from modelfetch.cli.settings import Environment, Settings
from modelfetch.errors import BUG_CODE, ConfigError, DeadlineError, Interrupted, ModelfetchError, UsageError
from modelfetch.net import dns
from modelfetch.net.connection_pool import DEFAULT_CONNECTIONS, NetworkOptions
from modelfetch.provenance.model_signing import ModelSigner, SignatureVerifier
from modelfetch.sources import SourceOptions, find_spec, mask_address, parse_uri
from modelfetch.uri import ModelURI

if TYPE_CHECKING:
    from modelfetch.pull.options import PullOptions

PULL_FLAGS = tuple(name for name in Settings.model_fields if name not in settings.WITHOUT_FLAG | settings.OF_PUSH)
TALK_FLAGS = ("termination_log", "log_format", "log_level", "progress")
REACH_FLAGS = ("anonymous", "stall_timeout", "timeout", *TALK_FLAGS)
PUSH_FLAGS = ("sign", "private_key", *(name for name in REACH_FLAGS if name != "anonymous"))
INSPECT_FLAGS = ("include", "exclude", *REACH_FLAGS)

app = typer.Typer(
    name="modelfetch",
    help="Puts a machine-learning model where an app needs it: verified, whole, or not at all.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: boxes would cut the variables' names short
    context_settings={"help_option_names": ["-h", "--help"]},
)

Output = Annotated[
    Literal["text", "json"], typer.Option("--output", "-o", help="json: the result on stdout, one line each.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


class CommandContext:
    """What is known for telling of a failure, however early it comes."""

    def __init__(self) -> None:
        """Begin with the environment's faces, before any setting is read."""
        console.hide(settings.secrets())
        self.console = console.Console()
        self.termination_log = settings.termination_log()
        self.source = ""
        self.configured = False  # whether the environment names the model
        self.debug = False

    def begin(self, given: dict[str, Any], *, debug: bool) -> tuple[Settings, Environment]:
        """Read the settings, and talk as they say from now on."""
        self.debug = debug
        chosen, environ = settings.load(given), settings.environment()
        self.termination_log = chosen.termination_log or self.termination_log
        self.console = console.Console(chosen.log_format, chosen.log_level, chosen.progress)
        for name, nearest in settings.misspelt():
            self.console.warn(f"{name} means nothing to modelfetch{f'; did you mean {nearest}?' if nearest else '.'}")
        if chosen.timeout is not None and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, chosen.timeout)
        return chosen, environ

    def about(self, text: str) -> ModelURI:
        """Take the address apart that all is about: failures name it, without the secrets that it may hold."""
        self.source = mask_address(text)
        uri = parse_uri(text)
        self.source = str(uri)
        console.hide([urlsplit(uri.url).query])
        return uri

    def failed(self, failure: dict[str, object]) -> None:
        """Tell why it failed: on stderr, and where Kubernetes looks."""
        signals.ignore()  # the reason is told, whatever comes now
        self.console.end()
        if self.termination_log is not None:
            try:
                console.write_termination_message(self.termination_log, failure)
            except OSError as error:
                where = f"{self.termination_log}: {error.strerror}"
                self.console.warn(f"The termination message cannot be written to {where}.")
        self.console.failed(failure)


def with_flags(*fields: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each of these settings; it gets those that were given as a dict."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = signatures.signature(command)

        @wraps(command)
        def wrapped(**everything: Any) -> None:  # noqa: ANN401  whatever the flags' types are
            given = {name: everything.pop(name) for name in fields}
            command(**everything, given={name: value for name, value in given.items() if value not in (None, [])})

        flags = [
            signatures.Parameter(n, signatures.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(n))
            for n in fields
        ]
        kept = [p for p in own.parameters.values() if p.name != "given"]
        wrapped.__dict__["__signature__"] = own.replace(parameters=[*kept, *flags])
        wrapped.__annotations__ = {p.name: p.annotation for p in (*kept, *flags)}
        return wrapped

    return decorate


def _flag(field: str) -> Any:  # noqa: ANN401  an annotation made at run time
    """The annotation of a setting's flag: its name, its variable, its meaning and default."""
    info = Settings.model_fields[field]
    several = info.default == ()
    kinds = [kind for kind in (get_args(info.annotation) or (info.annotation,)) if kind is not NoneType]
    default = "" if info.default in (None, (), False) else f" Default: {settings.shown(field, info.default)}."
    names = [f"--{field.replace('_', '-')}"]
    if kinds == [bool]:
        names[0] += f"/--no-{field.replace('_', '-')}"
    text = f"{info.description}{default} [{settings.variables(field)[0]}]"
    kind = info.annotation if get_args(info.annotation) and all(isinstance(k, str) for k in kinds) else None
    return Annotated[
        (kind or (bool if kinds == [bool] else list[str] if several else str)) | None,
        typer.Option(*names, help=text, metavar=settings.METAVARS.get(field), show_default=False),
    ]


@app.callback(invoke_without_command=True)
def _common(
    ctx: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"modelfetch {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(UsageError.code)


@app.command()
@with_flags(*PULL_FLAGS)
def pull(
    ctx: typer.Context,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE DEST]...", help="From where to where; else from the environment."),
    ] = None,
    *,
    output: Output = "text",
    debug: Debug = False,
    given: dict[str, Any],
) -> None:
    """Put a model on a volume, verified and whole.

    SOURCE is s3://, gs://, https://, file:/// or a path; DEST a file or a directory, as cp has it. Pairs run in order.
    Without arguments the environment names one pair: MODELFETCH_SOURCE, or GCS_BUCKET and GCS_MODEL_PATH, or S3_BUCKET
    and S3_MODEL_PATH; to LOCAL_MODEL_PATH or MODELFETCH_DEST.
    """
    from modelfetch.pull.pull import pull as pull_model  # noqa: PLC0415  a command imports what it needs, no more

    talk: CommandContext = ctx.obj
    chosen, environ = talk.begin(given, debug=debug)
    talk.configured = not pairs
    options = _options(chosen, environ, _judge(chosen, given))
    for source, dest in _pairs(pairs or [], chosen, environ):
        uri = talk.about(source)
        receipt = pull_model(uri, dest, _access(uri, chosen, environ, talk), options, talk.console)
        talk.console.end()
        if output == "json":
            _print(receipt.to_json())


@app.command()
@with_flags(*PUSH_FLAGS)
def push(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A file or a directory.")],
    target: Annotated[str, typer.Argument(help="s3:// or gs://; ends with a slash to keep the file's name.")],
    *,
    output: Output = "text",
    debug: Debug = False,
    given: dict[str, Any],
) -> None:
    """Publish a model; print its pinned URI and its sha256 for the ConfigMap."""
    from modelfetch.push.push import push as push_model  # noqa: PLC0415

    talk: CommandContext = ctx.obj
    chosen, environ = talk.begin(given, debug=debug)
    uri = talk.about(target)
    signer = _signer(chosen, given)
    pushed = push_model(path, uri, _access(uri, chosen, environ, talk, write=True), talk.console, signer)
    talk.console.end()
    _print(json.dumps(pushed.as_dict()) if output == "json" else f"{pushed.uri}\nsha256 {pushed.sha256}")


@app.command()
@with_flags(*INSPECT_FLAGS)
def inspect(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="Where the model is.")],
    *,
    output: Output = "text",
    debug: Debug = False,
    given: dict[str, Any],
) -> None:
    """Show what is there: version, size, checksums, files; nothing is downloaded."""
    from modelfetch.cli.inspection_report import inspection_as_dict, inspection_as_text  # noqa: PLC0415
    from modelfetch.inspection import inspect_source  # noqa: PLC0415

    talk: CommandContext = ctx.obj
    chosen, environ = talk.begin(given, debug=debug)
    uri = talk.about(source)
    inspection = inspect_source(uri, _access(uri, chosen, environ, talk), _options(chosen, environ))
    _print(json.dumps(inspection_as_dict(inspection)) if output == "json" else inspection_as_text(inspection))


@app.command()
@with_flags(*TALK_FLAGS)
def verify(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A pulled file or directory.")],
    *,
    output: Output = "text",
    debug: Debug = False,
    given: dict[str, Any],
) -> None:
    """Re-check what is on disk against its receipt."""
    from modelfetch.verify import verify as verify_model  # noqa: PLC0415

    talk: CommandContext = ctx.obj
    talk.begin(given, debug=debug)
    talk.source = str(path)
    receipt = verify_model(path)
    files = len(receipt.files)
    _print(
        receipt.to_json()
        if output == "json"
        else f"{path}: {files} file{'s'[: files != 1]} as published, {receipt.digest}"
    )


@app.command()
@with_flags(*PULL_FLAGS)
def config(ctx: typer.Context, *, output: Output = "text", debug: Debug = False, given: dict[str, Any]) -> None:
    """Print the effective settings and where each came from; secrets are masked."""
    talk: CommandContext = ctx.obj
    talk.begin({**given, "timeout": None}, debug=debug)
    rows = settings.effective(settings.load(given), given)
    if output == "json":
        _print(json.dumps({name: {"value": value, "from": origin} for name, value, origin in rows}))
        return
    wide = max(len(name) for name, _, _ in rows)
    broad = min(max(len(value) for _, value, _ in rows), 60)
    for name, value, origin in rows:
        _print(f"{name:<{wide}}  {value:<{broad}}  {origin}")


def _print(text: str) -> None:
    sys.stdout.write(console.visible(text) + "\n")
    sys.stdout.flush()


def _pairs(given: Sequence[str], chosen: Settings, environ: Environment) -> list[tuple[str, str]]:
    if not given:
        return [settings.source_and_dest(chosen, environ)]
    if len(given) % 2:
        raise UsageError(
            f"SOURCE and DEST come in pairs; {len(given)} argument{'s were' if len(given) > 1 else ' was'} given.",
            hint="modelfetch pull SOURCE DEST",
        )
    return list(zip(given[::2], given[1::2], strict=True))


def _access(
    uri: ModelURI, chosen: Settings, environ: Environment, talk: CommandContext, *, write: bool = False
) -> SourceOptions:
    if uri.scheme == "http":
        talk.console.warn(f"{uri} is fetched without encryption: anyone on the way can read and alter it.")
    if not environ.verify and uri.scheme != "file":
        talk.console.warn(
            "S3_VERIFY_SSL is off: no certificate is checked, anyone on the way can read and alter the model."
        )
    common = SourceOptions(
        network=NetworkOptions(
            stall_timeout=chosen.stall_timeout,
            ca_bundle=environ.ca_bundle,
            verify=environ.verify,
            connections=chosen.connections or DEFAULT_CONNECTIONS,
        ),
        anonymous=chosen.anonymous,
        write=write,
        max_listed=max(chosen.max_files, SourceOptions.max_listed),
    )
    return find_spec(uri).options_from_env(os.environ, common)


def _judge(chosen: Settings, given: dict[str, Any]) -> SignatureVerifier | None:
    whose = signing_options.trust(chosen, given)
    return SignatureVerifier(whose) if whose else None


def _signer(chosen: Settings, given: dict[str, Any]) -> ModelSigner | None:
    key = signing_options.key(chosen, given)
    return ModelSigner(key) if key else None


def _options(chosen: Settings, environ: Environment, judge: SignatureVerifier | None = None) -> "PullOptions":
    from modelfetch.pull.options import PullOptions  # noqa: PLC0415
    from modelfetch.transfer.adaptive_pool import TransferLimits  # noqa: PLC0415

    return PullOptions(
        retries=chosen.retries,
        retry_wait=chosen.retry_wait,
        in_cluster=environ.in_cluster,
        extract=chosen.extract,
        include=chosen.include,
        exclude=chosen.exclude,
        sha256=chosen.sha256,
        recheck=chosen.recheck,
        max_bytes=chosen.max_bytes,
        max_files=chosen.max_files,
        max_ratio=chosen.max_ratio,
        require_manifest=chosen.require_manifest,
        verifier=judge,
        limits=TransferLimits(chosen.memory, chosen.connections),
    )


def run(args: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code. Tells of every failure, and raises none."""
    talk = CommandContext()
    try:
        signals.release()  # from here on they can be told of
        code = _run(args, talk)
        signals.ignore()
    except Interrupted as error:
        code = _interrupted(error.signum, talk)
    return code


def _run(args: Sequence[str] | None, talk: CommandContext) -> int:
    try:
        code = app(args=args, standalone_mode=False, obj=talk, prog_name="modelfetch")
    except typer.TyperException as error:
        failure = UsageError(error.format_message(), hint="See modelfetch --help.")
        talk.failed(console.failure(failure, talk.source))
        return failure.code
    except ModelfetchError as error:
        told = (
            ConfigError(error.message, hint=error.hint) if talk.configured and isinstance(error, UsageError) else error
        )
        talk.failed(console.failure(told, talk.source))
        if talk.debug:
            console.trace(error)
        return told.code
    except BrokenPipeError:  # whoever read our output has gone
        return 128 + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001  the last resort: whatever it is, say so
        hint = "This is a bug: please report it, with the output of --debug."
        talk.failed(console.report(BUG_CODE, "bug", f"{type(error).__name__}: {error}", hint, talk.source))
        if talk.debug:
            console.trace(error)
        return BUG_CODE
    return code if isinstance(code, int) else 0


def _interrupted(signum: int, talk: CommandContext) -> int:
    if signum == getattr(signal, "SIGALRM", None):
        late = DeadlineError(
            "The time given by --timeout is used up.", hint="Raise MODELFETCH_TIMEOUT; the next run resumes."
        )
        talk.failed(console.failure(late, talk.source))
        return late.code
    name = signal.Signals(signum).name
    talk.failed(
        console.report(
            128 + signum,
            "interrupted",
            f"Stopped by {name}.",
            "Run it again; a pull resumes where it stopped.",
            talk.source,
        )
    )
    return 128 + signum


def main() -> NoReturn:
    """Run the process's command line, and end the process."""
    # What libraries have to say is for programmers; off a terminal it would also break the JSON lines.
    logging.getLogger().addHandler(logging.NullHandler())
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    dns.install_lookup()
    code = run()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # a thread may still wait for a server that hangs: nothing is left to do for it
