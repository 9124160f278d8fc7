"""Generated: one module per request, response and header. See `python -m codegen`."""
