"""HTTP over cheroot: request framing, keep-alive, threads, signals and the order of stopping. Knows no WebDAV."""
