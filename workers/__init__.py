"""Things that answer like an SGLang server: real ones started here, and simulated ones. Never imports `router`."""
