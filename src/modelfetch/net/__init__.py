"""HTTP connections, shared by all sources: certificates, proxies, redirects, retries, and errors in plain words.

Sources send requests through `ConnectionPool`; the SDKs open their own, with the same proxies and certificates.

    connection_pool.py   requests to any number of hosts; keep-alive GETs where possible, else urllib3
    http1.py             the keep-alive GET itself: request, response head, body
    redirects.py         the next URL of a redirect, and which headers go there
    tls.py               certificates, and sockets that read many TLS records in one call
    proxies.py           proxies of the environment
    network_errors.py    exceptions of the network libraries, explained
    retry.py             which errors are retried, how soon and how often
    dns.py               host name lookups that leave the main thread free for signals
"""
