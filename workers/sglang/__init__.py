"""Real SGLang servers: how to set one up, start it and stop it. Simulated ones are in workers.simulated."""
