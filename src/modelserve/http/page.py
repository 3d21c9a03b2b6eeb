"""HTML page at `/`: facts of the served model, and an example request. No script, no external resource."""

import json
import re
import shlex
from html import escape
from string import Template

from modelserve.engine.inference import InferenceEngine
from modelserve.runtimes.signature import Cell, InputSignature

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
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


def render_page(engine: InferenceEngine, *, host: str, port: int) -> str:
    """Render the page.

    Args:
        engine: the served model, or the state of loading.
        host: Host header of the client; the example request goes there.
        port: port of the example request if `host` is not a valid host.
    """
    model = engine.repository.model
    facts = {"status": engine.unready_reason or "ready"}
    title, example = engine.repository.source.name or "modelserve", ""
    if model is not None:
        title = model.name
        facts |= {
            "model": f"{model.runtime.class_name} ({model.runtime.library})",
            "source": model.source or "unknown: there is no receipt",
            "version": model.version,
            "digest": model.digest,
            "loaded": f"{model.loaded_at:%Y-%m-%d %H:%M:%S} UTC",
        }
        address = host if _HOST.fullmatch(host) else f"localhost:{port}"
        document = {"features": [build_example_row(model.runtime.signature)]}
        command = f"curl {address}/predict -d {shlex.quote(json.dumps(document))}"
        example = f"<h2>Try it</h2>\n<pre>{escape(command)}</pre>"
    rows = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return _PAGE.substitute(title=escape(title), rows=rows, example=example)


def build_example_row(signature: InputSignature) -> dict[str, Cell] | list[Cell] | str:
    """Build a row accepted by the model, as far as the signature is known."""
    if signature.text:
        return "some text"
    if signature.names is not None:
        return {c.name: c.example for c in signature.columns or () if c.kind != "unused"}
    return [c.example for c in signature.columns or ()] or [0]
