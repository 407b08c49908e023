from __future__ import annotations

import itertools
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from router.errors import (
    CircuitOpenError,
    EngineFailedError,
    ModelTooBigError,
    QueueFullError,
    QueueTimeoutError,
    ShuttingDownError,
    StartFailedError,
)
from router.scheduler import (
    Action,
    Grant,
    Reject,
    Scheduler,
    SlotState,
    Start,
    Stay,
    Stop,
    Waiting,
)

DEATH = EngineFailedError("it ended")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def scheduler(budget: int = 100, max_queue: int = 100, clock: Clock | None = None) -> Scheduler:
    return Scheduler(budget, max_queue=max_queue, queue_seconds=60.0, clock=clock or Clock())


def test_a_cold_model_is_started_once_however_many_ask() -> None:
    s = scheduler()
    assert s.request(1, "a", 10) == [Start("a")]
    assert s.request(2, "a", 10) == []
    assert s.ready("a") == [Grant(1, "a"), Grant(2, "a")]
    assert s.request(3, "a", 10) == [Grant(3, "a")]


def test_two_models_that_fit_load_side_by_side() -> None:
    s = scheduler(budget=20)
    assert s.request(1, "a", 10) == [Start("a")]
    assert s.request(2, "b", 10) == [Start("b")]


def test_an_idle_model_makes_room_and_its_memory_counts_until_it_is_gone() -> None:
    s = scheduler(budget=10)
    s.request(1, "a", 10)
    s.ready("a")
    s.release(1)
    assert s.request(2, "b", 10) == [Stop("a")]
    assert s.reserved_bytes == 10
    assert s.queue[2].waiting is Waiting.MEMORY
    assert s.stopped("a") == [Start("b")]
    assert s.ready("b") == [Grant(2, "b")]


def test_a_streaming_model_is_not_stopped_and_gets_no_new_requests_while_another_waits() -> None:
    s = scheduler(budget=10)
    s.request(1, "a", 10)
    s.ready("a")
    assert s.request(2, "b", 10) == []
    assert s.request(3, "a", 10) == []
    assert s.release(1) == [Stop("a")]
    assert s.stopped("a") == [Start("b")]
    assert s.ready("b") == [Grant(2, "b")]
    assert s.release(2) == [Stop("b")]
    assert s.stopped("b") == [Start("a")]
    assert s.ready("a") == [Grant(3, "a")]


def test_when_the_waiting_client_leaves_the_model_in_its_way_serves_again() -> None:
    s = scheduler(budget=10)
    s.request(1, "a", 10)
    s.ready("a")
    s.request(2, "b", 10)
    s.request(3, "a", 10)
    assert s.cancel(2) == [Grant(3, "a")]


def test_a_failed_start_tells_everyone_who_waited_and_the_next_request_tries_again() -> None:
    s = scheduler()
    s.request(1, "a", 10)
    s.request(2, "a", 10)
    error = StartFailedError("no")
    assert s.start_failed("a", error) == [Reject(1, error), Reject(2, error)]
    assert s.reserved_bytes == 0


def failing(s: Scheduler, clock: Clock, times: int) -> None:
    """Let `a` fail so often in a row, as soon as it may be tried each time."""
    for number in range(100, 100 + times):
        if "a" in s.circuits:
            clock.now = max(clock.now, s.circuits["a"].retry_at)
        assert s.request(number, "a", 10) == [Start("a")]
        s.start_failed("a", StartFailedError("no luck"))


def test_after_a_failure_the_next_start_waits_a_second_and_others_do_not_notice() -> None:
    clock = Clock()
    s = scheduler(budget=20, clock=clock)
    failing(s, clock, 1)
    assert s.request(1, "a", 10) == []
    assert s.queue[1].waiting is Waiting.PAUSE
    assert s.request(2, "b", 20) == [Start("b")]
    clock.now = 0.9
    assert (s.next_deadline, s.expire()) == (1.0, [])
    clock.now = 1.0
    s.ready("b")
    s.release(2)
    assert s.stopped("b") == [Start("a")]


def test_the_pauses_double_up_to_a_minute() -> None:
    clock = Clock()
    s = scheduler(clock=clock)
    waits = []
    for number in range(9):
        clock.now = s.circuits["a"].retry_at if number else 0.0
        assert s.request(number, "a", 10) == [Start("a")]
        s.start_failed("a", StartFailedError("no luck"))
        waits.append(s.circuits["a"].retry_at - clock.now)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_after_three_failures_requests_fail_at_once_with_the_last_words() -> None:
    clock = Clock()
    s = scheduler(clock=clock)
    failing(s, clock, 3)
    (action,) = s.request(1, "a", 10)
    assert isinstance(action, Reject)
    assert isinstance(action.error, CircuitOpenError)
    assert "no luck" in action.error.message
    assert action.error.retry_after_seconds == 4


def test_an_open_circuit_lets_one_request_try_and_closes_when_it_works() -> None:
    clock = Clock()
    s = scheduler(clock=clock)
    failing(s, clock, 3)
    clock.now = s.circuits["a"].retry_at
    assert s.request(1, "a", 10) == [Start("a")]
    (action,) = s.request(2, "a", 10)
    assert isinstance(action, Reject)
    assert s.ready("a") == [Grant(1, "a")]
    assert s.request(3, "a", 10) == [Grant(3, "a")]


def test_a_model_that_dies_of_every_request_is_left_alone_as_well() -> None:
    clock = Clock()
    s = scheduler(clock=clock)
    for number in range(3):
        s.request(number, "a", 10)
        clock.now = max(clock.now, s.circuits["a"].retry_at if "a" in s.circuits else 0.0)
        s.expire()
        s.ready("a")
        s.died("a", DEATH)
        s.stopped("a")
    (action,) = s.request(4, "a", 10)
    assert isinstance(action, Reject)
    assert isinstance(action.error, CircuitOpenError)


def test_an_answer_ends_the_row_of_failures() -> None:
    clock = Clock()
    s = scheduler(clock=clock)
    failing(s, clock, 3)
    clock.now = s.circuits["a"].retry_at
    s.request(1, "a", 10)
    s.ready("a")
    s.release(1, answered=True)
    s.died("a", DEATH)
    assert s.circuits["a"].failures == 1


def test_who_waits_when_the_circuit_opens_is_told() -> None:
    clock = Clock()
    s = scheduler(budget=10, clock=clock)
    failing(s, clock, 2)
    clock.now = 10
    s.request(1, "a", 10)
    s.ready("a")
    s.request(2, "b", 10)
    s.request(3, "a", 10)
    stop, rejection = s.died("a", DEATH)
    assert stop == Stop("a")
    assert isinstance(rejection, Reject)
    assert rejection.ticket == 3


def test_one_that_died_after_a_steady_life_starts_the_count_anew() -> None:
    clock = Clock()
    s = scheduler(clock=clock)
    failing(s, clock, 3)
    clock.now = 100
    s.request(1, "a", 10)
    s.ready("a")
    clock.now = 200
    s.died("a", DEATH)
    assert s.circuits["a"].failures == 1


def test_other_files_arm_it_again() -> None:
    clock = Clock()
    s = scheduler(clock=clock)
    failing(s, clock, 3)
    assert s.rearm("a") == []
    assert s.request(1, "a", 10) == [Start("a")]


def test_another_way_to_run_it_is_tried_for_those_who_wait() -> None:
    s = scheduler(budget=20)
    s.request(1, "a", 10)
    assert s.start_again("a", 15) == [Start("a")]
    assert s.reserved_bytes == 15
    assert s.ready("a") == [Grant(1, "a")]


def test_a_start_that_ran_out_of_memory_is_tried_once_all_that_is_idle_has_left() -> None:
    s = scheduler(budget=30)
    s.request(1, "busy", 10)
    s.request(2, "idle", 5)
    s.ready("busy")
    s.ready("idle")
    s.release(2)
    s.request(3, "a", 10)
    assert s.start_alone("a") == [Stop("idle")]
    assert s.stopped("idle") == [Start("a")]
    assert s.slots["a"].reserved_bytes == 20
    assert s.start_alone("a") is None


# Measured


def test_what_was_thought_is_corrected_by_what_is_measured() -> None:
    s = scheduler(budget=20)
    s.request(1, "a", 15)
    s.ready("a")
    s.request(2, "b", 10)
    assert s.measured("a", 8) == [Start("b")]
    assert s.reserved_bytes == 18


def test_one_that_takes_more_than_was_thought_makes_the_idle_leave_and_not_the_busy() -> None:
    s = scheduler(budget=20)
    for number, key in enumerate(("a", "b")):
        s.request(number, key, 10)
        s.ready(key)
    s.release(0)
    assert s.measured("b", 12) == [Stop("a")]
    assert s.measured("b", 30) == []
    s.stopped("a")
    assert s.request(3, "a", 10) == []
    assert s.queue[3].waiting is Waiting.MEMORY


def test_a_smaller_budget_ends_nobody_who_is_measured_to_take_less() -> None:
    s = scheduler(budget=20)
    s.request(1, "a", 15)
    s.ready("a")
    s.release(1)
    s.budget_bytes = 5
    assert s.measured("a", 10) == []
    assert s.request(2, "a", 10) == [Grant(2, "a")]


def test_a_short_machine_takes_no_new_model_beside_others() -> None:
    s = scheduler(budget=100)
    s.request(1, "a", 10)
    s.ready("a")
    assert s.machine(room_bytes=5, short_bytes=0) == []
    assert s.request(2, "b", 10) == []
    assert s.machine(room_bytes=10, short_bytes=0) == [Start("b")]


def test_a_short_machine_makes_what_is_idle_leave_for_a_new_model() -> None:
    s = scheduler(budget=100)
    s.request(1, "a", 10)
    s.ready("a")
    s.release(1)
    s.machine(room_bytes=-20, short_bytes=0)
    assert s.request(2, "b", 50) == [Stop("a")]
    assert s.stopped("a") == [Start("b")]


def test_a_machine_that_others_have_filled_does_not_keep_the_only_model_out() -> None:
    s = scheduler(budget=100)
    s.machine(room_bytes=-20, short_bytes=20)
    assert s.request(1, "a", 10) == [Start("a")]


def test_a_machine_that_is_badly_short_makes_the_idle_leave() -> None:
    s = scheduler(budget=100)
    for number, key in enumerate(("a", "b")):
        s.request(number, key, 10)
        s.ready(key)
    s.release(0)
    assert s.machine(room_bytes=-30, short_bytes=20) == [Stop("a")]


def test_a_dead_instance_is_cleared_away_and_started_again_on_demand() -> None:
    s = scheduler(budget=10)
    s.request(1, "a", 10)
    s.ready("a")
    assert s.died("a", DEATH) == [Stop("a")]
    assert s.request(2, "a", 10) == []
    assert [ticket.waiting for ticket in s.queue.values()] == [Waiting.UNLOADING]
    assert s.release(1) == []
    assert s.stopped("a") == []
    assert [ticket.waiting for ticket in s.queue.values()] == [Waiting.PAUSE]


def test_a_model_bigger_than_the_budget_is_refused_before_anything_is_evicted() -> None:
    s = scheduler(budget=10)
    s.request(1, "a", 10)
    s.ready("a")
    s.release(1)
    (action,) = s.request(2, "huge", 11)
    assert isinstance(action, Reject)
    assert isinstance(action.error, ModelTooBigError)
    assert s.slots["a"].state is SlotState.READY


def test_a_full_queue_refuses_without_starting_anything() -> None:
    s = scheduler(max_queue=1)
    assert s.request(1, "a", 10) == [Start("a")]
    (action,) = s.request(2, "b", 10)
    assert isinstance(action, Reject)
    assert isinstance(action.error, QueueFullError)
    assert action.error.retry_after_seconds
    assert set(s.slots) == {"a"}


def test_a_wait_for_memory_ends_at_its_deadline_and_a_load_does_not() -> None:
    clock = Clock()
    s = scheduler(budget=10, clock=clock)
    s.request(1, "a", 10)
    s.request(2, "b", 10)
    clock.now = 61.0
    (action,) = s.expire()
    assert isinstance(action, Reject)
    assert action.ticket == 2
    assert isinstance(action.error, QueueTimeoutError)
    assert s.ready("a") == [Grant(1, "a")]


def test_another_longest_wait_holds_for_those_who_wait_already() -> None:
    clock = Clock()
    s = scheduler(budget=10, clock=clock)
    s.request(1, "a", 10)
    s.request(2, "b", 10)
    s.queue_seconds = 90.0
    clock.now = 61.0
    assert (s.expire(), s.next_deadline) == ([], 90.0)
    s.queue_seconds = 30.0
    (action,) = s.expire()
    assert isinstance(action, Reject)
    assert "waited 30 s" in action.error.message


def test_after_close_nobody_new_gets_in_and_leases_go_on() -> None:
    s = scheduler()
    s.request(1, "a", 10)
    s.ready("a")
    s.request(2, "b", 10)
    (action,) = s.close()
    assert isinstance(action, Reject)
    assert action.ticket == 2
    (action,) = s.request(3, "a", 10)
    assert isinstance(action, Reject)
    assert isinstance(action.error, ShuttingDownError)
    assert s.slots["a"].leases == {1}


def test_a_retired_model_finishes_what_it_answers_and_ends() -> None:
    s = scheduler()
    s.request(1, "a", 10)
    s.ready("a")
    assert s.retire("a") == []
    assert s.release(1) == [Stop("a")]
    assert s.stopped("a") == []
    assert s.slots == {}


def test_an_idle_model_that_is_retired_ends_at_once_and_only_once() -> None:
    s = scheduler()
    s.request(1, "a", 10)
    s.ready("a")
    s.release(1)
    assert s.retire("a") == [Stop("a")]
    assert s.retire("a") == []
    assert s.retire("unheard-of") == []


def test_who_asks_for_a_retired_model_gets_its_successor() -> None:
    s = scheduler()
    s.request(1, "a", 10)
    s.ready("a")
    s.retire("a")
    assert s.request(2, "a", 12) == []
    assert s.queue[2].waiting is Waiting.UNLOADING
    assert s.release(1) == [Stop("a")]
    assert s.stopped("a") == [Start("a")]
    assert s.slots["a"].reserved_bytes == 12
    assert s.ready("a") == [Grant(2, "a")]


def test_a_model_retired_while_it_loads_is_not_granted() -> None:
    s = scheduler()
    s.request(1, "a", 10)
    s.retire("a")
    assert s.ready("a") == [Stop("a")]
    assert s.stopped("a") == [Start("a")]
    assert s.ready("a") == [Grant(1, "a")]


def test_a_start_that_fails_while_the_model_changes_is_tried_with_the_new_one() -> None:
    s = scheduler()
    s.request(1, "a", 10)
    s.retire("a")
    assert s.start_failed("a", StartFailedError("no")) == [Start("a")]
    assert s.start_failed("a", error := StartFailedError("no")) == [Reject(1, error)]


def test_who_waits_for_a_model_that_has_grown_waits_for_the_memory_of_the_new_one() -> None:
    s = scheduler(budget=20)
    s.request(1, "a", 10)
    s.ready("a")
    s.request(2, "b", 15)
    assert s.revise("b", 20) == []
    assert s.release(1) == [Stop("a")]
    assert s.stopped("a") == [Start("b")]
    assert s.reserved_bytes == 20


def test_who_waits_for_a_model_that_has_outgrown_the_budget_is_told_and_holds_nobody_up() -> None:
    s = scheduler(budget=20)
    s.request(1, "a", 10)
    s.ready("a")
    s.retire("a")
    s.request(2, "a", 21)
    s.request(3, "b", 20)
    assert s.release(1) == [Stop("a")]
    rejection, start = s.stopped("a")
    assert isinstance(rejection, Reject)
    assert isinstance(rejection.error, ModelTooBigError)
    assert start == Start("b")


def test_who_waits_for_a_model_that_is_gone_is_told_at_once() -> None:
    s = scheduler(budget=20)
    s.request(1, "a", 10)
    s.ready("a")
    s.request(2, "b", 20)
    s.request(3, "a", 10)
    error = StartFailedError("gone")
    assert s.withdraw("b", error) == [Reject(2, error), Grant(3, "a")]
    assert s.withdraw("b", error) == []


def test_what_was_idle_for_long_enough_is_stopped_and_not_before() -> None:
    clock = Clock()
    s = scheduler(clock=clock)
    s.request(1, "a", 10, Stay(idle_seconds=30))
    s.ready("a")
    clock.now = 1000
    assert (s.next_deadline, s.expire()) == (None, [])  # it answers
    s.release(1)
    clock.now = 1029
    assert (s.next_deadline, s.expire()) == (1030, [])
    clock.now = 1030
    assert (s.expire(), s.next_deadline) == ([Stop("a")], None)


def test_a_use_begins_the_idle_time_anew() -> None:
    clock = Clock()
    s = scheduler(clock=clock)
    s.request(1, "a", 10, Stay(idle_seconds=30))
    s.ready("a")
    s.release(1)
    clock.now = 20
    assert s.request(2, "a", 10, Stay(idle_seconds=30)) == [Grant(2, "a")]
    clock.now = 40
    assert s.expire() == []
    s.release(2)
    assert s.next_deadline == 70


def test_a_request_that_comes_while_an_idle_model_ends_waits_for_its_successor() -> None:
    s = scheduler()
    s.request(1, "a", 10, Stay(idle_seconds=0))
    s.ready("a")
    s.release(1)
    assert s.expire() == [Stop("a")]
    assert s.request(2, "a", 10) == []
    assert s.stopped("a") == [Start("a")]


def test_a_pinned_model_makes_no_room() -> None:
    s = scheduler(budget=20)
    s.request(1, "pinned", 10, Stay(pinned=True))
    s.request(2, "a", 10)
    s.ready("pinned")
    s.ready("a")
    s.release(1)
    s.release(2)
    assert s.request(3, "b", 10) == [Stop("a")]
    s.stopped("a")
    s.ready("b")
    assert s.request(4, "c", 20) == []
    assert s.queue[4].waiting is Waiting.MEMORY


def test_a_model_may_be_pinned_or_let_go_while_it_is_loaded() -> None:
    clock = Clock()
    s = scheduler(budget=10, clock=clock)
    s.request(1, "a", 10)
    s.ready("a")
    s.release(1)
    assert s.keep("a", Stay(pinned=True)) == []
    assert s.request(2, "b", 10) == []
    assert s.keep("a", Stay()) == [Stop("a")]
    s.stopped("a")
    s.ready("b")
    s.release(2)
    assert s.next_deadline is None
    s.keep("b", Stay(idle_seconds=5.0))
    assert s.next_deadline == 5.0


def test_a_smaller_budget_ends_nobodys_lease_and_is_kept_by_what_comes() -> None:
    s = scheduler(budget=20)
    for number, key in ((1, "a"), (2, "b")):
        s.request(number, key, 10)
        s.ready(key)
    s.release(2)
    s.budget_bytes = 10
    assert s.request(3, "a", 10) == [Grant(3, "a")]
    (refused,) = s.request(4, "d", 12)
    assert isinstance(refused, Reject)
    assert isinstance(refused.error, ModelTooBigError)
    assert s.request(5, "c", 5) == []
    s.release(1)
    assert s.release(3) == [Stop("a"), Stop("b")]
    s.stopped("b")
    assert s.stopped("a") == [Start("c")]


SIZES = {"a": 4, "b": 6, "c": 7, "d": 10, "e": 1}


STAYS = {"a": Stay(), "b": Stay(5.0), "c": Stay(), "d": Stay(0.0), "e": Stay(30.0)}


class RandomLife(RuleBasedStateMachine):
    """Random events in any order; a model world answers Starts and Stops as a pool would."""

    tickets = Bundle("tickets")

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.scheduler = Scheduler(10, max_queue=6, queue_seconds=20.0, clock=self.clock)
        self.numbers = itertools.count(1)
        self.starting: set[str] = set()
        self.running: set[str] = set()
        self.stopping: set[str] = set()
        self.dead: set[str] = set()
        self.open: set[int] = set()
        self.leased: dict[int, str] = {}
        self.ended: set[int] = set()
        self.most_bytes = 10

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start(key):
                    assert self.scheduler.reserved_bytes <= self.scheduler.usable_bytes
                    assert key not in self.starting | self.running | self.stopping
                    self.starting.add(key)
                case Stop(key):
                    assert key in self.running
                    assert key in self.dead or key not in self.leased.values()
                    self.running.discard(key)
                    self.stopping.add(key)
                case Grant(number, key):
                    assert number in self.open
                    assert key in self.running
                    self.open.discard(number)
                    self.leased[number] = key
                case Reject(number, _):
                    assert number in self.open
                    self.open.discard(number)
                    self.ended.add(number)

    @rule(target=tickets, key=st.sampled_from(sorted(SIZES)))
    def request(self, key: str) -> int:
        number = next(self.numbers)
        self.open.add(number)
        self.perform(self.scheduler.request(number, key, SIZES[key], STAYS[key]))
        return number

    @rule(number=consumes(tickets))
    def leave(self, number: int) -> None:
        actions = self.scheduler.cancel(number)
        if number in self.open:
            self.open.discard(number)
            self.ended.add(number)
        if self.leased.pop(number, None) is not None:
            self.ended.add(number)
        self.perform(actions)

    @rule(key=st.sampled_from(sorted(SIZES)), size=st.integers(1, 20))
    def measure(self, key: str, size: int) -> None:
        self.perform(self.scheduler.measured(key, size))

    @rule(room=st.integers(-20, 20), short=st.integers(0, 20))
    def look_at_the_machine(self, room: int, short: int) -> None:
        self.perform(self.scheduler.machine(room, short))

    @rule(key=st.sampled_from(sorted(SIZES)))
    def rearm(self, key: str) -> None:
        self.perform(self.scheduler.rearm(key))

    @rule(pick=st.integers(0, 4), size=st.integers(1, 12))
    def start_in_another_way(self, pick: int, size: int) -> None:
        if not self.starting:
            return
        key = sorted(self.starting)[pick % len(self.starting)]
        self.starting.discard(key)
        self.perform(self.scheduler.start_again(key, size))

    @rule(pick=st.integers(0, 4))
    def run_out_of_memory(self, pick: int) -> None:
        if not self.starting:
            return
        key = sorted(self.starting)[pick % len(self.starting)]
        actions = self.scheduler.start_alone(key)
        if actions is not None:
            self.starting.discard(key)
            self.perform(actions)

    @rule(pick=st.integers(0, 4), works=st.booleans())
    def finish_start(self, pick: int, works: bool) -> None:
        if not self.starting:
            return
        key = sorted(self.starting)[pick % len(self.starting)]
        self.starting.discard(key)
        if works:
            self.running.add(key)
            self.perform(self.scheduler.ready(key))
        else:
            self.perform(self.scheduler.start_failed(key, StartFailedError("no")))

    @rule(pick=st.integers(0, 4))
    def finish_stop(self, pick: int) -> None:
        if not self.stopping:
            return
        key = sorted(self.stopping)[pick % len(self.stopping)]
        self.stopping.discard(key)
        self.dead.discard(key)
        for number in [n for n, k in self.leased.items() if k == key]:
            del self.leased[number]
            self.ended.add(number)
            self.perform(self.scheduler.release(number))
        self.perform(self.scheduler.stopped(key))

    @rule(pick=st.integers(0, 4))
    def die(self, pick: int) -> None:
        if not self.running:
            return
        key = sorted(self.running)[pick % len(self.running)]
        self.dead.add(key)
        self.perform(self.scheduler.died(key, DEATH))

    @rule(key=st.sampled_from(sorted(SIZES)))
    def change(self, key: str) -> None:
        self.perform(self.scheduler.retire(key))

    @rule(key=st.sampled_from(sorted(SIZES)), size=st.integers(1, 12))
    def become_another(self, key: str, size: int) -> None:
        self.perform(self.scheduler.revise(key, size))

    @rule(key=st.sampled_from(sorted(SIZES)))
    def disappear(self, key: str) -> None:
        self.perform(self.scheduler.withdraw(key, StartFailedError("gone")))

    @rule(key=st.sampled_from(sorted(SIZES)), like=st.sampled_from(sorted(STAYS)))
    def stay_otherwise(self, key: str, like: str) -> None:
        self.perform(self.scheduler.keep(key, STAYS[like]))

    @rule(budget=st.integers(6, 14), size=st.integers(1, 12))
    def have_another_budget(self, budget: int, size: int) -> None:
        """What is reserved already may be more than a smaller one, and only becomes less."""
        self.most_bytes = max(budget, self.scheduler.reserved_bytes)
        self.scheduler.budget_bytes = budget
        self.perform(self.scheduler.revise("a", size))

    @rule(nbytes=st.integers(0, 10))
    def lose_and_find(self, nbytes: int) -> None:
        self.perform(self.scheduler.lost(nbytes))

    @rule(seconds=st.floats(0.1, 15))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.perform(self.scheduler.expire())

    @invariant()
    def holds_its_promises(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        s = self.scheduler
        assert set(s.slots) == self.starting | self.running | self.stopping
        assert set(s.queue) == self.open
        assert len(s.queue) <= s.max_queue
        assert not self.ended & (self.open | set(self.leased))

    def teardown(self) -> None:
        """No starvation: once everyone who was served leaves, everyone who waits is served."""
        if not hasattr(self, "scheduler"):
            return
        self.scheduler.queue_seconds = float("inf")
        for _ in range(200):
            if not self.open:
                break
            self.clock.now += 1.0
            self.perform(self.scheduler.expire())
            for key in sorted(self.starting):
                self.starting.discard(key)
                self.running.add(key)
                self.perform(self.scheduler.ready(key))
            for number in sorted(self.leased):
                del self.leased[number]
                self.perform(self.scheduler.release(number))
            for key in sorted(self.stopping):
                self.stopping.discard(key)
                self.dead.discard(key)
                self.perform(self.scheduler.stopped(key))
        assert not self.open


TestRandomLife = RandomLife.TestCase
TestRandomLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
