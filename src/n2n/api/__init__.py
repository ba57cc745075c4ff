"""How people and programs reach a daemon: the control socket, its client, and the public Python classes."""
