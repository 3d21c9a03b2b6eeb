"""Commands: flags → settings → use case → output and exit code."""

import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from modelfetch import __version__
from modelfetch.cli.config_report import config_as_dict, config_as_text, list_config_rows
from modelfetch.cli.context import CommandContext
from modelfetch.cli.environment import Environment, source_and_dest
from modelfetch.cli.failure_report import make_report, report_error
from modelfetch.cli.options import INSPECT_FLAGS, OUTPUT_FLAGS, PULL_FLAGS, PUSH_FLAGS, Debug, Output, with_flags
from modelfetch.cli.redaction import escape_invisible
from modelfetch.cli.settings import Settings, load_settings
from modelfetch.cli.signing_options import make_signing_key, make_trust_policy
from modelfetch.cli.standard_streams import install_streams, write_document
from modelfetch.errors import (
    BUG_CODE,
    ConfigError,
    DeadlineError,
    Interrupted,
    ModelfetchError,
    OutputError,
    ResourceError,
    UsageError,
)
from modelfetch.net import dns
from modelfetch.net.connection_pool import DEFAULT_CONNECTIONS, NetworkOptions
from modelfetch.provenance.model_signing import ModelSigner, SignatureVerifier
from modelfetch.signals import SignalGuard
from modelfetch.sources import SourceOptions, find_spec, mask_address
from modelfetch.uri import ModelURI, find_argument_flaw

if TYPE_CHECKING:
    from modelfetch.pull.options import PullOptions

_READER_PATIENCE = 30.0  # seconds for a reader of stdout that takes no byte, once the work is done

app = typer.Typer(
    name="modelfetch",
    help="Pull machine-learning models from object storage onto a volume: verified, and published whole or not at all.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: boxes would truncate the variables' names
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _show_version(
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
        typer.Argument(metavar="[SOURCE DEST]...", help="Sources and destinations; default: from the environment."),
    ] = None,
    *,
    output: Output = "text",
    debug: Debug = False,
    flags: dict[str, Any],
) -> None:
    """Pull a model onto a volume, verified and published whole.

    SOURCE: s3://, gs://, https://, file:/// or a path. DEST: a file or a directory, as for cp. Pairs run in order.
    Without arguments, the environment names one pair. Source: MODELFETCH_SOURCE, or GCS_BUCKET and GCS_MODEL_PATH, or
    S3_BUCKET and S3_MODEL_PATH. Destination: LOCAL_MODEL_PATH or MODELFETCH_DEST.
    """
    from modelfetch.pull.pull import pull as pull_model  # noqa: PLC0415  a command imports what it needs, no more

    context: CommandContext = ctx.obj
    settings, environment = context.load_settings(flags, debug=debug)
    context.from_environment = not pairs
    options = _pull_options(settings, environment, _make_verifier(settings, flags))
    for source, dest in _pair_arguments(pairs or [], settings, environment):
        uri = context.parse_address(source)
        receipt = pull_model(uri, dest, _source_options(uri, settings, environment, context), options, context.progress)
        context.console.end_phase()
        if output == "json":
            _print_result(receipt.to_json(), context, f"{uri} is published")


@app.command()
@with_flags(*PUSH_FLAGS)
def push(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(help="File or directory to push.")],
    target: Annotated[str, typer.Argument(help="s3:// or gs:// address; a trailing slash keeps the file's name.")],
    *,
    output: Output = "text",
    debug: Debug = False,
    flags: dict[str, Any],
) -> None:
    """Push a model to a bucket; print its pinned URI and sha256 for the ConfigMap."""
    from modelfetch.push.push import push as push_model  # noqa: PLC0415

    context: CommandContext = ctx.obj
    settings, environment = context.load_settings(flags, debug=debug)
    _check_argument(path, "PATH")
    _check_argument(target, "TARGET")
    uri = context.parse_address(target)
    signer = _make_signer(settings, flags)
    pushed = push_model(
        Path(path), uri, _source_options(uri, settings, environment, context, write=True), context.progress, signer
    )
    context.console.end_phase()
    text = json.dumps(pushed.as_dict()) if output == "json" else f"{pushed.uri}\nsha256 {pushed.sha256}"
    _print_result(text, context, f"{uri} is pushed")


@app.command()
@with_flags(*INSPECT_FLAGS)
def inspect(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="Address of the model.")],
    *,
    output: Output = "text",
    debug: Debug = False,
    flags: dict[str, Any],
) -> None:
    """Show version, size, checksums and files of a model, without a download."""
    from modelfetch.cli.inspection_report import inspection_as_dict, inspection_as_text  # noqa: PLC0415
    from modelfetch.inspection import inspect_source  # noqa: PLC0415

    context: CommandContext = ctx.obj
    settings, environment = context.load_settings(flags, debug=debug)
    _check_argument(source, "SOURCE")
    uri = context.parse_address(source)
    inspection = inspect_source(
        uri, _source_options(uri, settings, environment, context), _pull_options(settings, environment)
    )
    context.mark_ready()
    _print_output(json.dumps(inspection_as_dict(inspection)) if output == "json" else inspection_as_text(inspection))


@app.command()
@with_flags(*OUTPUT_FLAGS)
def verify(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(help="Pulled file or directory.")],
    *,
    output: Output = "text",
    debug: Debug = False,
    flags: dict[str, Any],
) -> None:
    """Verify a pulled model against its receipt."""
    from modelfetch.verify import verify as verify_model  # noqa: PLC0415

    context: CommandContext = ctx.obj
    context.load_settings(flags, debug=debug)
    context.mark_ready()
    _check_argument(path, "PATH")
    context.source = path
    receipt = verify_model(Path(path))
    files = len(receipt.files)
    text = f"{path}: {files} file{'s'[: files != 1]} as published, {receipt.digest}"
    _print_result(receipt.to_json() if output == "json" else text, context, f"{path} is as published")


@app.command()
@with_flags(*PULL_FLAGS)
def config(ctx: typer.Context, *, output: Output = "text", debug: Debug = False, flags: dict[str, Any]) -> None:
    """Print the effective settings and the origin of each, secrets masked."""
    context: CommandContext = ctx.obj
    context.load_settings({**flags, "timeout": None}, debug=debug)
    rows = list_config_rows(load_settings(flags), flags)
    _print_output(json.dumps(config_as_dict(rows)) if output == "json" else config_as_text(rows))


def _print_output(text: str) -> None:
    write_document(escape_invisible(text) + "\n")


def _print_result(text: str, context: CommandContext, outcome: str) -> None:
    """Print the document of a command whose work is done; a lost document is a warning, for the work stands."""
    try:
        write_document(escape_invisible(text) + "\n", _READER_PATIENCE)
    except (OutputError, BrokenPipeError) as error:
        reason = error.message if isinstance(error, OutputError) else "The reader of stdout has gone."
        context.console.log_warning(f"{outcome}, but the output is lost: {reason}")


def _pair_arguments(arguments: Sequence[str], settings: Settings, environment: Environment) -> list[tuple[str, str]]:
    if not arguments:
        return [source_and_dest(settings, environment)]
    count = len(arguments)
    if count % 2:
        raise UsageError(
            f"SOURCE and DEST come in pairs; {count} argument{'s were' if count > 1 else ' was'} given.",
            hint="modelfetch pull SOURCE DEST",
        )
    for number, argument in enumerate(arguments):
        _check_argument(argument, ("SOURCE", "DEST")[number % 2])
    return list(zip(arguments[::2], arguments[1::2], strict=True))


def _check_argument(text: str, name: str) -> None:
    """Refuse an empty argument, a line break at the end, and a variable that was not expanded."""
    if flaw := find_argument_flaw(text):
        raise UsageError(f"{name} {flaw[0]}: {mask_address(text)!r}.", hint=flaw[1])


def _source_options(
    uri: ModelURI, settings: Settings, environment: Environment, context: CommandContext, *, write: bool = False
) -> SourceOptions:
    if uri.scheme == "http":
        context.console.log_warning(f"{uri} is fetched without encryption: anyone on the way can read and alter it.")
    common = SourceOptions(
        network=NetworkOptions(
            stall_timeout=settings.stall_timeout,
            ca_bundle=environment.ca_bundle,
            connections=settings.connections or DEFAULT_CONNECTIONS,
        ),
        anonymous=settings.anonymous,
        write=write,
        max_listed=max(settings.max_files, SourceOptions.max_listed),
    )
    options = find_spec(uri).options_from_env(os.environ, common)
    if not options.network.verify:
        context.console.log_warning(
            "S3_VERIFY_SSL is off: no certificate is checked, anyone on the way can read and alter the model."
        )
    return options


def _make_verifier(settings: Settings, flags: dict[str, Any]) -> SignatureVerifier | None:
    policy = make_trust_policy(settings, flags)
    return SignatureVerifier(policy) if policy else None


def _make_signer(settings: Settings, flags: dict[str, Any]) -> ModelSigner | None:
    key = make_signing_key(settings, flags)
    return ModelSigner(key) if key else None


def _pull_options(
    settings: Settings, environment: Environment, verifier: SignatureVerifier | None = None
) -> "PullOptions":
    from modelfetch.pull.options import PullOptions  # noqa: PLC0415
    from modelfetch.transfer.adaptive_pool import TransferLimits  # noqa: PLC0415

    return PullOptions(
        retries=settings.retries,
        retry_wait=settings.retry_wait,
        in_cluster=environment.in_cluster,
        extract=settings.extract,
        include=settings.include,
        exclude=settings.exclude,
        sha256=settings.sha256,
        recheck=settings.recheck,
        max_bytes=settings.max_bytes,
        max_files=settings.max_files,
        max_ratio=settings.max_ratio,
        require_manifest=settings.require_manifest,
        verifier=verifier,
        limits=TransferLimits(settings.memory, settings.connections),
        publishing=settings.publish,
    )


def run(
    args: Sequence[str] | None = None,
    guard: SignalGuard | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> int:
    """Run one command line and report every failure; raises no exception.

    Args:
        args: command line without the program's name; by default the process's own.
        guard: installed signal handlers; by default handlers for this command only.
        on_ready: callback at the end of the start: a source was opened, or cannot be.

    Returns:
        The exit code.
    """
    if guard is not None:
        return _run_guarded(args, guard, on_ready)
    with SignalGuard(held=True) as guard_of_command:
        return _run_guarded(args, guard_of_command, on_ready)


def _run_guarded(args: Sequence[str] | None, guard: SignalGuard, on_ready: Callable[[], None]) -> int:
    context = CommandContext(guard, on_ready)
    try:
        guard.release()  # from here on an interrupt can be reported
        code = _run_command(args, context)
        guard.ignore()
    except Interrupted as error:
        code = _report_interrupt(error.signum, context)
    return code


def _run_command(args: Sequence[str] | None, context: CommandContext) -> int:
    try:
        code = app(args=args, standalone_mode=False, obj=context, prog_name="modelfetch")
    except typer.TyperException as error:
        usage = UsageError(error.format_message(), hint="See modelfetch --help.")
        context.report_failure(report_error(usage, context.source))
        return usage.code
    except ModelfetchError as error:
        reported = error
        if context.from_environment and isinstance(error, UsageError):
            reported = ConfigError(error.message, hint=error.hint)
        context.report_failure(report_error(reported, context.source), error)
        return reported.code
    except BrokenPipeError:  # the reader of stdout has gone
        return 128 + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001  the last resort: every error is reported
        if isinstance(error, MemoryError) or "can't start new thread" in str(error):
            lacking = ResourceError(
                "The system grants no further memory or thread.",
                hint="Raise the memory limit or the limit of processes (pids), or lower MODELFETCH_MEMORY.",
            )
            context.report_failure(report_error(lacking, context.source), error)
            return lacking.code
        hint = "This is a bug: please report it, with the output of --debug."
        message = f"{type(error).__name__}: {error}"
        context.report_failure(make_report(BUG_CODE, "bug", message, hint, context.source), error)
        return BUG_CODE
    return code if isinstance(code, int) else 0


def _report_interrupt(signum: int, context: CommandContext) -> int:
    if signum == getattr(signal, "SIGALRM", None):
        deadline = DeadlineError(
            "The time given by --timeout is used up.", hint="Raise MODELFETCH_TIMEOUT; the next run resumes."
        )
        context.report_failure(report_error(deadline, context.source))
        return deadline.code
    code, name = 128 + signum, signal.Signals(signum).name
    hint = "Run it again; a pull resumes where it stopped."
    context.report_failure(make_report(code, "interrupted", f"Stopped by {name}.", hint, context.source))
    return code


def main(guard: SignalGuard | None = None, on_ready: Callable[[], None] = lambda: None) -> NoReturn:
    """Run the process's command line, and end the process; see `run`."""
    # Warnings and logs of libraries address programmers; off a terminal they would also break the JSON lines.
    logging.getLogger().addHandler(logging.NullHandler())
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    dns.install_lookup()
    install_streams()
    code = run(guard=guard, on_ready=on_ready)
    os._exit(code)  # a thread may still wait for a server that hangs; no work is left to wait for
