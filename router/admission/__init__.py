"""Who may be served now: a fair, bounded queue, limits per API key, and a budget for retries. Arithmetic."""
