# SPDX-License-Identifier: GPL-2.0-only
"""A thread that runs vCPUs, and can be parked (QEMU's accel/kvm/kvm-accel-ops.c, cpus.c).

    PARK --run()--> RUN --park()--> PARK --end()--> END

Rules:
R1  `run`, `park` and `end` say what is wanted, from any thread, and return at once. The thread
    gets there by itself: wait with `MainLoop.wait_for(lambda: thread.parked)`.
R2  Only while it is parked may another thread touch a vCPU's registers.
R3  The thread parks by itself when a vCPU stopped for another reason than a kick, and reports it.
R4  An accelerator whose vCPUs take turns has one thread for all of them, else one for each.

State of several threads: `_wanted` and `parked`, under `_lock`; `ended` is written by the thread.

What once went wrong here: run() and park() within a microsecond. The thread never woke up, `run`
had cleared `parked`, and nobody set it again. So `parked` is set at each turn of the wait.
"""

from __future__ import annotations

from block.lean import IntEnum
from miniqemu.accel.base import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from block.aio.world import World
    from miniqemu.accel.base import Vcpu

    class Owner(Protocol):
        """What the thread tells, from the thread itself, without the big lock."""

        def vcpu_parked(self) -> None: ...
        def vcpu_stopped(self, vcpu: Vcpu, stop: Stop) -> None: ...
        def vcpu_failed(self, error: BaseException) -> None: ...


class Wanted(IntEnum):
    """What others want of the thread."""

    PARK = 0
    RUN = 1
    END = 2


class VcpuThread:
    """One thread for one vCPU, or for several that take turns (qemu_thread cpu)."""

    def __init__(self, vcpus: list[Vcpu], owner: Owner, world: World) -> None:
        self.vcpus, self._owner, self._world = vcpus, owner, world
        self._lock = world.new_lock()
        self._changed = world.new_condition(self._lock)
        self._wanted = Wanted.PARK
        self.parked = self.ended = False
        self.identity = 0
        self._thread = world.start_thread(f"cpu {vcpus[0].index}", self._main)

    def run(self) -> None:
        """Lets the vCPUs run."""
        self._want(Wanted.RUN)

    def park(self) -> None:
        """Stops the vCPUs soon (cpu->stop = true; qemu_cpu_kick)."""
        self._want(Wanted.PARK)

    def end(self) -> None:
        """Ends the thread soon; `join` when `ended`."""
        self._want(Wanted.END)

    def join(self) -> None:
        """Waits until the thread is gone."""
        self._thread.join()

    def _want(self, wanted: Wanted) -> None:
        with self._lock:
            self._wanted = wanted
            if wanted is Wanted.RUN:
                self.parked = False
            self._changed.notify_all()
        if wanted is not Wanted.RUN:
            for vcpu in self.vcpus:
                vcpu.kick()

    def _main(self) -> None:
        self.identity = self._world.current()
        try:
            for vcpu in self.vcpus:
                vcpu.prepare_thread()
            while self._rest():
                self._work()
        except BaseException as error:
            self._owner.vcpu_failed(error)
        for vcpu in self.vcpus:
            vcpu.leave_thread()
        self.parked = self.ended = True
        self._owner.vcpu_parked()

    def _rest(self) -> bool:
        """Parked, until somebody wants something; False: the end (qemu_wait_io_event)."""
        with self._lock:
            while self._wanted is Wanted.PARK:
                self.parked = True
                self._owner.vcpu_parked()
                self._changed.wait()
            return self._wanted is Wanted.RUN

    def _work(self) -> None:
        """Runs the vCPUs until something else is wanted (kvm_vcpu_thread_fn's loop)."""
        while self._wanted is Wanted.RUN:
            for vcpu in self.vcpus:
                stop = vcpu.run()
                if stop not in (Stop.KICKED, Stop.HALTED):
                    self._stopped(vcpu, stop)

    def _stopped(self, vcpu: Vcpu, stop: Stop) -> None:
        with self._lock:
            if self._wanted is Wanted.RUN:
                self._wanted = Wanted.PARK
        self._owner.vcpu_stopped(vcpu, stop)
