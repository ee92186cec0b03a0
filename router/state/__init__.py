"""What outlives a change: a configuration that is reloaded while requests run, and learned state over a restart."""
