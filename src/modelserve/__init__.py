"""modelserve: load the model that an init container put on a volume, and answer predictions over HTTP.

Public interface: environment variables, routes and exit codes. The receipt beside the model is the only link to the
fetcher.

    process     command line, settings, logging, the uvicorn server
    http        the ASGI app: routes, middleware, the HTML page, the OpenAPI schemas
    protocols   codecs: request body → InferenceRequest, InferenceResponse → response body
    engine      the loaded model, admission control, inference
    runtimes    one module per kind of model
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("modelfetch")
except PackageNotFoundError:  # run from a source tree without an installation
    __version__ = "0+unknown"
