"""A simulated SGLang server: one pure engine per DP rank, wall time, and SGLang's HTTP. Start reading at server.py."""
