"""State machines of the protocol: what an edge and a supernode decide, without any input or output.

Both cores share one shape: `receive(datagram, source, now)`, `handle_timer(now)`, `next_timer()` and `drain()`.
The clock is an argument; what is to be done comes out as the values of :mod:`n2n.proto.actions`.
"""
