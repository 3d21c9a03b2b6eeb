"""HTTP interface: the ASGI app, routes, middleware, the HTML page and the OpenAPI schemas."""
