"""What happened to a packet.  Every C function of the plane answers with one of these; each is a counter.

`plane.pyx` gives each its public name in the same order; a test holds the two lists equal.
"""

cdef enum:
    # traffic
    V_UDP_RX = 0            # datagrams received (segments of a train counted singly)
    V_UDP_RX_BYTES
    V_UDP_TX                # datagrams sent
    V_UDP_TX_BYTES
    V_TAP_RX                # frames read from the TAP
    V_TAP_RX_BYTES
    V_TAP_TX                # frames written to the TAP
    V_TAP_TX_BYTES
    V_TX_DIRECT             # frames sent straight to the peer
    V_TX_RELAY              # unicast frames sent by way of the supernode
    V_TX_FLOOD              # broadcast, multicast and unknown unicast frames given to the supernode
    V_RELAYED               # datagrams relayed to one member
    V_RELAYED_FLOOD         # copies made for broadcast
    V_CONTROL               # datagrams handed to Python
    V_CONTROL_TX            # datagrams that Python sent
    V_NOTICE                # traffic notices handed to Python: frames for a known peer were read from the TAP
    V_MSS_CLAMPED           # TCP connections whose segments were made to fit a path
    V_TOLD_TOO_BIG          # hosts that were told by ICMP that a packet is too large for its path
    V_TRAINS_RX             # trains (UDP_GRO) received
    V_TRAINS_TX             # trains (UDP_SEGMENT) sent
    V_SUPER_RX              # super-frames read from the TAP
    V_SUPER_TX              # super-frames written to the TAP
    V_LOAD_RX               # loads counted, questions taken, answers noted (`load.pxd`)
    V_LOAD_TX               # such datagrams sent
    V_LOAD_ANSWERED         # questions among them that were answered
    V_TRAIN_REFUSED         # trains that the kernel refused; their datagrams were sent singly
    # drops of what arrived by UDP
    V_DROP_EMPTY            # no byte at all
    V_DROP_SHORT            # shorter than its header
    V_DROP_FOREIGN          # first byte is neither ProtoV 5 nor VFuze
    V_DROP_TYPE             # a ProtoV type that nobody handles in this role
    V_DROP_TRUNCATED        # longer than the largest datagram
    V_DROP_CONTROL_LONG     # a request or ping longer than any honest one
    V_DROP_LOAD             # a load that nobody agreed to, or more than was agreed
    V_DROP_VFUZE_OFF
    V_DROP_STRANGER         # data from an endpoint that is neither the supernode nor a known peer
    V_DROP_DESTINATION      # data for somebody else
    V_DROP_SPOOFED          # inner source is ours, a group, or not the sender's
    V_DROP_UNSEALED         # does not open: altered, or another passphrase
    V_DROP_ZSTD             # does not decompress, or to more than a frame
    V_DROP_FRAME_SHORT      # frame below 14 bytes, in either direction
    V_DROP_FRAME_LONG       # frame beyond the limit, in either direction
    V_DROP_UNKNOWN_SENDER   # relay: sender not registered, and its report was over the limit
    V_DROP_UNKNOWN_TARGET   # relay: nobody to relay to
    # drops on our side
    V_DROP_NO_SUPERNODE     # nowhere to relay by
    V_DROP_NO_ROUTE         # peer's address family does not fit the socket
    V_DROP_SEND_FULL        # socket buffer full
    V_DROP_SEND_ERROR       # the kernel refused the datagram
    V_DROP_TAP_FULL
    V_DROP_TAP_ERROR        # the kernel refused the frame (EIO: link down)
    V_DROP_CONTROL_FULL     # ring to Python full
    V_DROP_COMMAND          # a command that could not be carried out (table full)
    V_DROP_SUPER            # a super-frame from the TAP that makes no sense
    V_RECV_ERROR
    V_COUNT
