"""The daemon as its clients see it: where its HTTP door is, how its stream is followed, how it is called.

`door` finds the address, `websocket` connects, `follow` resumes by `seq`, `lines` makes events readable, `calls` posts
to the REST door and posts again when the answer is lost.
"""
