"""The page at `/`: what is served, and a request to copy. No script, nothing loaded from elsewhere."""

import json
import re
import shlex
from html import escape
from string import Template

from modelserve.runtimes.base import Cell, Inputs
from modelserve.service import Service

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_HOST = re.compile(r"[\w.:\[\]-]{1,260}", re.ASCII)
_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
  :root { color-scheme: light dark }
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem }
  dt { opacity: .7 } dd { margin: 0; overflow-wrap: anywhere }
  pre { padding: 1rem; overflow-x: auto; border: 1px solid; border-radius: .4rem }
</style>
<h1>$title</h1>
<dl>
$rows
</dl>
$example
<p><a href="docs">API</a> · <a href="model">model</a> · <a href="metrics">metrics</a></p>
</html>
""")


def render(service: Service, host: str) -> str:
    """The page; `host` is what the client calls this server."""
    model, settings = service.model, service.settings
    facts = {"status": service.trouble or "ready"}
    title, example = settings.model_name or "modelserve", ""
    if model is not None:
        title = model.name
        facts |= {
            "model": f"{model.runtime.kind} ({model.runtime.library})",
            "source": model.source or "unknown: there is no receipt",
            "version": model.version,
            "digest": model.digest,
            "loaded": f"{model.loaded:%Y-%m-%d %H:%M:%S} UTC",
        }
        address = host if _HOST.fullmatch(host) else f"localhost:{settings.port}"
        command = (
            f"curl {address}/predict -d {shlex.quote(json.dumps({'features': [example_row(model.runtime.inputs)]}))}"
        )
        example = f"<h2>Try it</h2>\n<pre>{escape(command)}</pre>"
    rows = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return _PAGE.substitute(title=escape(title), rows=rows, example=example)


def example_row(inputs: Inputs) -> dict[str, Cell] | list[Cell] | str:
    """A row that the model takes, as far as it says which."""
    if inputs.text:
        return "some text"
    if inputs.names is not None:
        return {c.name: c.example for c in inputs.columns or () if c.kind != "unused"}
    return [c.example for c in inputs.columns or ()] or [0]
