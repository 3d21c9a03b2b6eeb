"""Command line: flags and environment → settings → use case → output and exit code.

app.py                commands, exit codes; the only importer of Typer beside options.py
options.py            flags of a command, generated from the settings
context.py            state of one command: console, redactor, signals, failure report
settings.py           settings: fields, parsing, loading
environment.py        variables outside the settings: the clouds' pairs, names common to all sources, secrets
config_report.py      rows of `modelfetch config`
signing_options.py    settings about signatures → trust policy, signing key
console.py            events on stderr: text and progress bar for a person, JSON lines for a log
redaction.py          secrets and invisible characters kept out of every output
failure_report.py     failure as JSON; termination message; traceback
inspection_report.py  text and JSON of `modelfetch inspect`
"""
