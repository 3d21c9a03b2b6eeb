"""Support code for tests, bench, demo and scripts: real servers, fault injection, command runners, files, assertions.

Servers and stores:
- `servers`: build and run MinIO, fake-gcs-server, toxiproxy and moto.
- `stores`: buckets on real servers, alike for S3 and GCS; a local folder of models.
- `options`: source options for tests without the command line.
- `https_server`: static files over TLS, with ranges and ETags.
- `raw_server`: bytes as scripted, HTTP or not.
- `scripted_server`: S3, GCS and plain HTTP responses as a test scripts them.
- `issuers`: credential endpoints of AWS and Google, as scripts for `scripted_server`.
- `sigstore`: a private Sigstore instance, offline.

Faults:
- `fault_proxy`, `fault_rules`, `fault_handler`: an HTTP proxy that breaks requests by rule.
- `toxiproxy`: faults of the byte stream below HTTP.
- `strace`: system calls of a run, traced and interrupted.
- `mounts`: file systems for one test.

Command and files:
- `cli_runner`: the `modelfetch` command as a process. `warm_process`: the same by fork, for many runs.
- `file_tree`: random bytes, trees of files, digests, manifests.
- `archives`: valid and malformed archives. `publishing`: models published without a pull.
- `signing_keys`: keys, certificates and signatures.

Errors:
- `library_errors`: one exception of every class that a library may raise.
- `error_assertions`: translation of library exceptions into ours, and the contract of the result.
- `botocore_snapshot`: behaviour of an installed botocore as JSON.

Pytest:
- `classification`: plugin that marks tests by the servers, processes and containers they need.
"""
