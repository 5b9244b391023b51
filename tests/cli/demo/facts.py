"""One fact of each kind."""

from impervious.cli.demo.facts import (
    Arrived,
    Concluded,
    Fact,
    Opened,
    Place,
    Progressed,
    Sent,
    StepBegan,
    StepEnded,
    Stopping,
    TourEnded,
)


def place(name: str, port: int) -> Place:
    return Place(
        name=name,
        pubkey=f"02{name}",
        lnd=f"127.0.0.1:{port + 9}",
        grpc=f"127.0.0.1:{port}",
        http=f"127.0.0.1:{port + 1}",
        text=f"127.0.0.1:{port + 2}",
        config=f"/nowhere/{name}/config.yml",
    )


OPENED = Opened(places=(place("alice", 8881), place("carol", 8891)), between=("bob",), seconds=0.5)
BEGAN = StepBegan(name="large", title="alice sends a lot", number=2, steps=3)
SENT = Sent(by="alice", to="carol", id="0123456789", size=5, text="hello")
HALF = Progressed(to="carol", settled=5, parts=10)
ARRIVED = Arrived(
    at="carol", sender="alice", service="message", id="0123456789", reply_to="", size=5, text="hello", amount_sat=1
)
DELIVERED = Concluded(at="alice", id="0123456789", state="delivered", reason="", parts=2, amount_sat=2, fee_msat=2000)
FAILED = Concluded(at="alice", id="0123456789", state="failed", reason="no route", parts=0, amount_sat=0, fee_msat=0)
ENDED = StepEnded(name="large", seconds=1.234)
DONE = TourEnded(steps=3, seconds=2.5, goes_on=True)
STOPPING = Stopping()

EVERY: tuple[Fact, ...] = (OPENED, BEGAN, SENT, HALF, ARRIVED, DELIVERED, FAILED, ENDED, DONE, STOPPING)
