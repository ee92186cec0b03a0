"""Who may do what: clients' keys, the admin's key, where workers may be, TLS. Reads files; makes no network calls."""
