"""The control plane: which workers exist, how they are, what they hold."""
