"""Cell classes on the frozen backbone: SCAN without its own network, and the member that stands on them.

May import train.members.scan for SCAN's loss, neighbours, confident pictures and fusion. The network that SCAN trains
itself, for the report's protocol, stays there.
"""
