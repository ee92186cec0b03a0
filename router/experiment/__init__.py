"""The experiment plane: arms, assignment, isolation, comparison that may be looked at any time, and shadows."""
