"""Flags of a command, generated from the settings: name, variable, type, help text."""

import inspect
from collections.abc import Callable
from functools import wraps
from types import NoneType
from typing import Annotated, Any, Literal, get_args

import typer

from modelfetch.cli.settings import (
    METAVARS,
    PUSH_ONLY,
    WITHOUT_FLAG,
    Settings,
    flag_name,
    format_value,
    list_variables,
)

OUTPUT_FLAGS = ("termination_log", "log_format", "log_level", "progress")
NETWORK_FLAGS = ("anonymous", "stall_timeout", "timeout", *OUTPUT_FLAGS)
PULL_FLAGS = tuple(name for name in Settings.model_fields if name not in WITHOUT_FLAG | PUSH_ONLY)
PUSH_FLAGS = ("sign", "private_key", *(name for name in NETWORK_FLAGS if name != "anonymous"))
INSPECT_FLAGS = ("include", "exclude", *NETWORK_FLAGS)

Output = Annotated[
    Literal["text", "json"],
    typer.Option("--output", "-o", help="json: print the result on stdout, one line per model."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]


def with_flags(*fields: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a flag per setting to a command; its parameter `flags` receives the given flags as a dict."""

    def decorate_command(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)

        @wraps(command)
        def call_command(**arguments: Any) -> None:  # noqa: ANN401  values of every flag's type
            flags = {name: arguments.pop(name) for name in fields}
            command(**arguments, flags={name: value for name, value in flags.items() if value not in (None, [])})

        keyword_only = inspect.Parameter.KEYWORD_ONLY
        own = [parameter for parameter in signature.parameters.values() if parameter.name != "flags"]
        added = [inspect.Parameter(name, keyword_only, default=None, annotation=_make_flag(name)) for name in fields]
        call_command.__dict__["__signature__"] = signature.replace(parameters=[*own, *added])
        call_command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
        return call_command

    return decorate_command


def _make_flag(field: str) -> Any:  # noqa: ANN401  an annotation made at run time
    """Return the annotation of a setting's flag: names, type, help text with default and variable."""
    info = Settings.model_fields[field]
    multiple = info.default == ()
    types = [kind for kind in (get_args(info.annotation) or (info.annotation,)) if kind is not NoneType]
    default = "" if info.default in (None, (), False) else f" Default: {format_value(field, info.default)}."
    name = flag_name(field)
    if types == [bool]:
        name += f"/--no-{name.removeprefix('--')}"
    text = f"{info.description}{default} [{list_variables(field)[0]}]"
    choices = info.annotation if get_args(info.annotation) and all(isinstance(kind, str) for kind in types) else None
    return Annotated[
        (choices or (bool if types == [bool] else list[str] if multiple else str)) | None,
        typer.Option(name, help=text, metavar=METAVARS.get(field), show_default=False),
    ]
