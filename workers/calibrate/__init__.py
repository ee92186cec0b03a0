"""Measuring SGLang servers: fitting the simulated worker's cost model, and comparing the two side by side."""
