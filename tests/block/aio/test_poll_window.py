# SPDX-License-Identifier: GPL-2.0-only
"""How long to look before a sleep, and whether: the rules of poll_window.py."""

from __future__ import annotations

from block.aio.poll_window import MOST_ROUNDS, ROUND, START_NS, PollWindow, Trial

USUAL, SHORTER, HICCUP = 200_000, 120_000, 4_000_000


def rounds(trial: Trial, ns: int, count: int = 1, work: int = 1) -> None:
    """Rounds of cycles that all take as long for as much work."""
    for _ in range(ROUND * count):
        trial.note(ns, work)


def looking_trial() -> Trial:
    """A trial after its measurement."""
    trial = Trial()
    rounds(trial, USUAL)
    assert trial.looking
    return trial


def test_the_window_grows_from_4_us_by_doubling_up_to_its_maximum() -> None:
    window = PollWindow(30_000)
    seen = []
    for _ in range(5):
        window.adjust(29_000)
        seen.append(window.ns)
    assert seen == [START_NS, 8_000, 16_000, 30_000, 30_000]


def test_it_grows_by_the_factor_that_was_asked_for() -> None:
    window = PollWindow(30_000, grow=5)
    for _ in range(2):
        window.adjust(29_000)
    assert window.ns == 20_000


def test_a_wait_that_the_window_covers_changes_nothing() -> None:
    window = PollWindow(30_000)
    window.ns = 16_000
    window.adjust(16_000)
    assert window.ns == 16_000


def test_a_wait_longer_than_the_maximum_takes_the_window_away_at_once() -> None:
    window = PollWindow(30_000)
    window.ns = 30_000
    window.adjust(30_001)
    assert window.ns == 0


def test_or_divides_it_until_nothing_is_left() -> None:
    window = PollWindow(30_000, shrink=2)
    window.ns = 30_000
    window.adjust(1_000_000_000)
    assert window.ns == 15_000
    for _ in range(14):
        window.adjust(1_000_000_000)
    assert window.ns == 0


def test_with_a_maximum_of_0_there_is_never_a_window() -> None:
    window = PollWindow(0)
    for wait_ns in (0, 1, 5_000, 1_000_000):
        window.adjust(wait_ns)
        assert window.ns == 0


def test_a_trial_measures_a_round_without_before_it_looks() -> None:
    trial = Trial()
    for _ in range(ROUND):
        assert not trial.looking
        trial.note(USUAL, 1)
    assert trial.looking


def test_looking_goes_on_while_the_same_work_takes_a_tenth_less() -> None:
    trial = looking_trial()
    rounds(trial, USUAL * 9 // 10, MOST_ROUNDS - 1)
    assert trial.looking


def test_and_ends_with_the_first_round_in_which_it_does_not() -> None:
    trial = looking_trial()
    rounds(trial, USUAL * 9 // 10 + 1)
    assert not trial.looking


def test_a_round_of_looking_ends_as_soon_as_it_has_lost() -> None:
    trial = looking_trial()
    trial.note(SHORTER, 1)
    trial.note(HICCUP, 1)
    trial.note(HICCUP, 1)
    assert not trial.looking


def test_a_hiccup_while_measuring_does_not_make_sleeping_look_bad() -> None:
    trial = Trial()
    for n in range(ROUND):
        trial.note(HICCUP if n % 4 == 0 else USUAL, 1)
    assert trial.looking
    rounds(trial, USUAL)
    assert not trial.looking


def rounds_without(trial: Trial) -> int:
    """Counts the rounds until the trial looks again, the measurement included."""
    count = 0
    while not trial.looking:
        rounds(trial, USUAL)
        count += 1
    return count


def lose(trial: Trial) -> None:
    while trial.looking:
        trial.note(HICCUP, 1)


def test_each_loss_in_a_row_makes_four_times_as_many_rounds_without_up_to_a_bound() -> None:
    trial = looking_trial()
    seen = []
    for _ in range(6):
        lose(trial)
        seen.append(rounds_without(trial) - 1)
    assert seen == [1, 4, 16, 64, MOST_ROUNDS, MOST_ROUNDS]


def test_a_round_that_paid_halves_them_again() -> None:
    trial = looking_trial()
    for _ in range(3):
        lose(trial)
        rounds_without(trial)
    rounds(trial, SHORTER, 2)
    lose(trial)
    assert rounds_without(trial) - 1 == 16


def test_on_a_busy_machine_a_trial_costs_one_wait_in_a_hundred() -> None:
    trial = Trial()
    spent = needed = 0
    for _ in range(100_000):
        wait_ns = HICCUP if trial.looking else USUAL
        trial.note(wait_ns, 1)
        spent += wait_ns
        needed += USUAL
    assert spent < needed * 1.02


def test_after_many_good_rounds_what_is_usual_is_measured_again() -> None:
    trial = looking_trial()
    rounds(trial, SHORTER, MOST_ROUNDS)
    assert not trial.looking
    rounds(trial, SHORTER)  # the machine, or the guest, has become faster
    assert trial.looking
    rounds(trial, SHORTER)
    assert not trial.looking


def test_work_in_heaps_is_not_taken_piece_by_piece_for_shorter_waits_alone() -> None:
    trial = Trial()
    rounds(trial, 8 * USUAL, work=8)
    rounds(trial, USUAL * 95 // 100, 7)
    assert trial.looking, "the round has as much work as the one that it is compared with"
    rounds(trial, USUAL * 95 // 100)
    assert not trial.looking, "an eighth of the wait, but nine tenths of the time"


def test_it_is_where_the_whole_takes_less_time() -> None:
    trial = Trial()
    rounds(trial, 8 * USUAL, work=8)
    rounds(trial, SHORTER, 16)
    assert trial.looking


def test_without_work_there_is_nothing_to_compare() -> None:
    trial = Trial()
    rounds(trial, USUAL, 10, work=0)
    assert not trial.looking
    rounds(trial, USUAL)
    assert trial.looking
