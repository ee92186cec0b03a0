"""`trieway serve --processes N`: several router processes on one port with one view of the fleet. Read relay first.

The parent (parent, relay, frame) serves nothing: it starts the children, hands frames on between them and starts again
what dies. A child (child, bus) runs the same app as a single process does, with a `Replica` beside it, which tells the
others what happens here and applies here what happens there. One child, the longest-running, leads: it alone probes
workers, polls their load, answers control routes, and writes the state file and the decision log.
"""
