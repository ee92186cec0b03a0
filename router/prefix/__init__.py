"""Data structures over prompt prefixes. No policy, no I/O, no clock."""
