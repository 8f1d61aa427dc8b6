# SPDX-License-Identifier: GPL-2.0-only
"""Events: what the block layer tells whoever wants to hear it (QAPI's events, qapi_event_send_*).

    event.subscribe(heard)                        heard(Event) for each, from now on
    if event.subscribers:                         the sender's side
        event.emit("QUORUM_FAILURE", {...})

R1  Without a subscriber an event costs one look at an empty tuple: its data are not even made.
R2  Names and members of the data are QMP's; `as_dict()` is what goes over QMP's wire.
R3  A subscriber is called in the thread where it happened, in the middle of the request: it must
    not wait, not raise, and not touch the tree. Whoever wants to act in another thread puts
    the event into a queue of his own and schedules a bottom half there.
R4  The order is that of the happenings within one context. How many events of a kind come
    through in a second is the subscriber's matter (QMP's monitor lets one through).

Who may call it: emit, any thread; subscribe and unsubscribe, the main thread. `subscribers` is the
state that threads share: it is replaced as a whole, so whoever emits sees the old or the new one.
"""

from __future__ import annotations

from block.aio.world import ClockType, the_world

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Subscriber = Callable[["Event"], None]


class Event:
    """Something that happened: a name, its data, and when, in ns of the wall clock."""

    __slots__ = ("data", "name", "time_ns")

    def __init__(self, name: str, data: dict[str, object], time_ns: int) -> None:
        self.name = name
        self.data = data
        self.time_ns = time_ns

    def __repr__(self) -> str:
        return f"<Event {self.name} {self.data}>"

    def as_dict(self) -> dict[str, object]:
        """Returns the event as QMP writes it."""
        seconds, rest = divmod(self.time_ns, 1_000_000_000)
        timestamp = {"seconds": seconds, "microseconds": rest // 1000}
        return {"timestamp": timestamp, "event": self.name, "data": self.data}


subscribers: tuple[Subscriber, ...] = ()
"""Who is called; empty: nobody wants to hear anything (R1)."""


def subscribe(subscriber: Subscriber) -> None:
    """Lets it be called for each event from now on."""
    global subscribers
    subscribers = (*subscribers, subscriber)


def unsubscribe(subscriber: Subscriber) -> None:
    """Takes that back."""
    global subscribers
    subscribers = tuple(other for other in subscribers if other != subscriber)


def emit(name: str, data: dict[str, object]) -> None:
    """Tells all subscribers that something happened, now (qapi_event_send_*)."""
    event = Event(name, data, the_world().clock_ns(ClockType.HOST))
    for subscriber in subscribers:
        subscriber(event)
