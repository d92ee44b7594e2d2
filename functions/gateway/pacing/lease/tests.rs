use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000_000_000 + ms)
}

fn lease(slot: u32, holder: &str, expires: Timestamp) -> Lease {
    Lease {
        slot,
        holder: holder.into(),
        expires,
    }
}

fn wish(instance: &str, waiting: u32) -> Wish {
    Wish {
        instance: instance.into(),
        waiting,
        expires: at(WISH_MS),
    }
}

fn waits(waiting: u32) -> Need {
    Need {
        waiting,
        ..Need::default()
    }
}

fn decide_at(board: &Board, instance: &str, need: &Need, open: u32, now: Timestamp) -> Decision {
    decide(
        instance,
        board,
        need,
        open,
        now,
        &mut fastrand::Rng::with_seed(7),
    )
}

#[test]
fn one_alone_takes_what_it_needs_of_what_is_open_and_says_what_else_it_wants() {
    let decision = decide_at(&Board::default(), "a", &waits(3), 10, at(0));
    assert_eq!(decision.take.len(), 3);
    assert_eq!(decision.wish, None);
    let decision = decide_at(&Board::default(), "a", &waits(30), 10, at(0));
    assert_eq!(decision.take.len(), 10);
    assert_eq!(decision.wish, Some(20));
    assert!(
        decide_at(&Board::default(), "a", &waits(1), 0, at(0))
            .take
            .is_empty()
    );
}

#[test]
fn the_start_is_random_so_that_instances_rarely_want_the_same_slot() {
    let first = |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        decide("a", &Board::default(), &waits(1), 10, at(0), &mut random).take[0]
    };
    let firsts: std::collections::BTreeSet<u32> = (0..200).map(first).collect();
    assert_eq!(firsts.len(), 10);
}

#[test]
fn what_runs_above_the_open_slots_counts_against_them() {
    let held = |slots: std::ops::Range<u32>| Board {
        leases: slots.map(|slot| lease(slot, "b", at(LEASE_MS))).collect(),
        wishes: Vec::new(),
    };
    let take = |board: &Board, open| decide_at(board, "a", &waits(10), open, at(0)).take;
    assert!(take(&held(5..10), 5).is_empty());
    assert_eq!(take(&held(6..10), 5), [0]);
    assert_eq!(take(&held(0..4), 5), [4]);
}

#[test]
fn an_instance_that_died_gives_its_slots_back_by_their_expiry() {
    let board = Board {
        leases: vec![lease(0, "b", at(0))],
        wishes: Vec::new(),
    };
    let take = |now| decide_at(&board, "a", &waits(1), 1, now).take;
    assert!(take(at(SLACK_MS - 1)).is_empty(), "clocks differ");
    assert_eq!(take(at(SLACK_MS)), [0]);
}

#[test]
fn a_lease_is_renewed_in_time_and_a_lost_one_is_noticed() {
    let board = Board {
        leases: vec![
            lease(0, "a", at(RENEW_BELOW_MS)),
            lease(1, "a", at(RENEW_BELOW_MS - 1)),
            lease(2, "b", at(LEASE_MS)),
        ],
        wishes: Vec::new(),
    };
    let need = Need {
        used: vec![0, 1, 2, 3],
        ..Need::default()
    };
    let decision = decide_at(&board, "a", &need, 10, at(0));
    assert_eq!(decision.renew, [1]);
    assert_eq!(decision.lost, [2, 3]);
}

#[test]
fn a_slot_that_is_idle_is_used_again_or_given_back() {
    let mut board = Board {
        leases: (0..4).map(|slot| lease(slot, "a", at(LEASE_MS))).collect(),
        wishes: Vec::new(),
    };
    let need = Need {
        used: vec![0, 1],
        waiting: 1,
        stands_back: false,
    };
    let decision = decide_at(&board, "a", &need, 10, at(0));
    assert_eq!((&*decision.reuse, &*decision.release), (&[2][..], &[3][..]));
    let fewer = decide_at(&board, "a", &need, 2, at(0));
    assert_eq!(fewer.release, [2, 3], "fewer are open by now");
    board.wishes.push(wish("b", 1));
    let yielding = decide_at(&board, "a", &need, 4, at(0));
    assert_eq!(yielding.release, [2, 3], "another one waits and has none");
}

#[test]
fn slots_are_parted_evenly_among_those_that_want_them() {
    let board = Board {
        leases: Vec::new(),
        wishes: vec![wish("b", 1), wish("c", 100)],
    };
    let take = |open| decide_at(&board, "a", &waits(100), open, at(0)).take.len();
    assert_eq!(take(9), 4, "b wants one, a and c share the rest");
    assert_eq!(take(2), 1);
    assert_eq!(take(1), 1);
    let stands_back = Need {
        stands_back: true,
        ..waits(100)
    };
    assert!(
        decide_at(&board, "a", &stands_back, 9, at(0))
            .take
            .is_empty()
    );
}

#[test]
fn one_slot_too_many_is_not_passed_round_but_a_single_one_is() {
    let board = |a: u32, b: u32| Board {
        leases: (0..a)
            .map(|slot| lease(slot, "a", at(LEASE_MS)))
            .chain((a..a + b).map(|slot| lease(slot, "b", at(LEASE_MS))))
            .collect(),
        wishes: vec![wish("b", 5)],
    };
    assert!(!board(3, 2).yields("a", 3, at(0)));
    assert!(board(4, 2).yields("a", 4, at(0)));
    assert!(board(1, 0).yields("a", 1, at(0)));
    assert!(!board(1, 0).yields("a", 1, at(WISH_MS)), "b waits no more");
}

#[test]
fn a_wish_is_repeated_before_it_ends_and_taken_back() {
    let mut board = Board {
        leases: Vec::new(),
        wishes: vec![wish("a", 3)],
    };
    let said = |board: &Board, waiting, now| decide_at(board, "a", &waits(waiting), 0, now).wish;
    assert_eq!(said(&board, 3, at(0)), None);
    let soon = WISH_MS - REPEAT_BELOW_MS + 1;
    assert_eq!(said(&board, 5, at(soon)), Some(5));
    assert_eq!(said(&board, 0, at(0)), Some(0));
    board.wishes.clear();
    assert_eq!(said(&board, 0, at(0)), None);
}

/// Instances over one board, each reading it at a time of its own: what one decides by is as old
/// as chance has it, and writes fail where the row has changed meanwhile.
#[derive(Clone, Debug)]
enum Act {
    Read(usize),
    Write(usize),
    End(usize),
    Pass(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let instance = 0_usize..4;
    let act = prop_oneof![
        4 => instance.clone().prop_map(Act::Read),
        4 => instance.clone().prop_map(Act::Write),
        3 => instance.prop_map(Act::End),
        1 => (0_u64..3_000).prop_map(Act::Pass),
    ];
    prop::collection::vec(act, 1..200)
}

proptest! {
    #[test]
    fn however_instances_interleave_no_more_run_than_are_open(acts in acts(), open in 0_u32..8) {
        let mut rows: Vec<(u64, Lease)> = (0..8).map(|slot| (0, lease(slot, "", at(0)))).collect();
        let mut seen: Vec<Option<(Vec<u64>, Board)>> = vec![None; 4];
        let mut used: Vec<Vec<u32>> = vec![Vec::new(); 4];
        let mut random = fastrand::Rng::with_seed(1);
        let mut now = at(0);
        for act in acts {
            match act {
                Act::Pass(ms) => now = now.plus_ms(ms),
                Act::End(i) => drop(used[i].pop()),
                Act::Read(i) => {
                    let leases = rows.iter().map(|(_, lease)| lease.clone()).collect();
                    let board = Board { leases, wishes: Vec::new() };
                    seen[i] = Some((rows.iter().map(|(version, _)| *version).collect(), board));
                }
                Act::Write(i) => {
                    let Some((versions, board)) = seen[i].take() else { continue };
                    let name = format!("i{i}");
                    let need = Need { used: used[i].clone(), waiting: 3, stands_back: false };
                    let decision = decide(&name, &board, &need, open, now, &mut random);
                    let mut put = |slot: u32, holder: &str| {
                        let row = &mut rows[slot as usize];
                        let unchanged = row.0 == versions[slot as usize];
                        if unchanged {
                            *row = (row.0 + 1, lease(slot, holder, now.plus_ms(LEASE_MS)));
                        }
                        unchanged
                    };
                    for slot in decision.release {
                        put(slot, "");
                    }
                    for slot in decision.renew {
                        put(slot, &name);
                    }
                    for slot in decision.take.into_iter().chain(decision.reuse) {
                        if put(slot, &name) {
                            used[i].push(slot);
                        }
                    }
                }
            }
            let running: usize = used.iter().map(Vec::len).sum();
            prop_assert!(running <= open as usize, "{running} of {open}");
        }
    }
}
