"""HTTP connections, shared by all sources: certificates, proxies, redirects, retries, and errors in plain words.

Sources send requests through `ConnectionPool`; the SDKs open their own, with the same proxies and certificates.

    connection_pool.py   requests to any number of hosts; keep-alive GETs where possible, else urllib3
    http1.py             keep-alive GET: request, response head, body
    redirects.py         the next URL of a redirect, and the headers allowed there
    tls.py               certificates, and sockets that read many TLS records in one call
    proxies.py           proxies of the environment
    network_errors.py    exceptions of the network libraries, explained
    retry.py             retryable errors, delays and attempts
    dns.py               host name lookups outside the main thread, which stays free for signals
"""
