"""The data plane, read top to bottom: endpoints, parse, prompt_key, dispatch, forward, relay, record."""
