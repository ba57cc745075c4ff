"""Composition roots: they own sockets, devices, timers and threads, and decide no protocol matter."""
