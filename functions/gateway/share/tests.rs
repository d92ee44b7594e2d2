use proptest::prelude::*;

use super::*;

mod simulation;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000_000_000 + ms)
}

fn limit() -> LimitId {
    LimitId::app(&"portal".into())
}

fn row(instance: &str, seen: Timestamp, wanted: u32, held: u32) -> Row {
    let claim = Claim {
        wanted: wanted.into(),
        held: held.into(),
        used: Default::default(),
    };
    Row {
        instance: instance.into(),
        seen,
        next_ms: 3_000,
        limits: [("portal".into(), claim)].into(),
    }
}

fn measured(used: u32, wanted: u32, share: u32) -> Vec<(LimitId, Measured)> {
    let measured = Measured {
        used: [used.into(); SLICES],
        wanted: wanted.into(),
        share: share.into(),
    };
    vec![(limit(), measured)]
}

fn share_of(beat: &Beat) -> u32 {
    let mut changes = beat.lowered.iter().chain(&beat.raised);
    changes.next().unwrap().1.millionths()
}

#[test]
fn an_instance_alone_has_the_whole_limit() {
    let beat = beat("a", &[], &measured(0, 0, 20_000), at(0));
    assert_eq!(beat.raised, [(limit(), Share::WHOLE)]);
    assert_eq!((beat.instances, beat.next_ms), (1, 1_000));
    assert_eq!(beat.row.limits["portal"].held, Share::WHOLE);
    let again = self::beat("a", &[beat.row], &measured(0, 0, 1_000_000), at(1_000));
    assert!(again.raised.is_empty() && again.lowered.is_empty());
    assert_eq!(again.next_ms, 2_000);
}

#[test]
fn one_that_comes_has_a_little_at_once_and_its_part_when_the_other_lets_go() {
    let first = row("a", at(0), 0, 1_000_000);
    let newcomer = beat(
        "b",
        std::slice::from_ref(&first),
        &measured(0, 0, 20_000),
        at(10),
    );
    assert_eq!(share_of(&newcomer), 25_000);
    let rows = [first, newcomer.row];
    let incumbent = beat("a", &rows, &measured(0, 0, 1_000_000), at(2_000));
    assert_eq!(incumbent.lowered, [(limit(), Share::from(500_000))]);
    let rows = [incumbent.row, rows[1].clone()];
    let newcomer = beat("b", &rows, &measured(0, 0, 25_000), at(2_010));
    assert_eq!(newcomer.raised, [(limit(), Share::from(500_000))]);
}

#[test]
fn what_was_used_in_this_minute_is_held_although_the_share_is_smaller() {
    let rows = [
        row("a", at(0), 100_000, 1_000_000),
        row("b", at(0), 1_000_000, 25_000),
    ];
    let beat = beat(
        "a",
        &rows,
        &measured(800_000, 800_000, 1_000_000),
        at(2_000),
    );
    assert!(share_of(&beat) < 200_000);
    assert_eq!(beat.row.limits["portal"].held, Share::from(800_000));
    assert_eq!(beat.next_ms, 1_000, "others wait for it");
}

#[test]
fn small_differences_move_nothing() {
    let rows = [
        row("a", at(0), 450_000, 500_000),
        row("b", at(0), 500_000, 500_000),
    ];
    let calm = beat("a", &rows, &measured(450_000, 450_000, 500_000), at(2_000));
    assert!(calm.lowered.is_empty() && calm.raised.is_empty());
    // With less than nine tenths of its part, b is short.
    let rows = [rows[0].clone(), row("b", at(0), 700_000, 500_000)];
    let moved = beat("a", &rows, &measured(450_000, 450_000, 500_000), at(2_000));
    assert_eq!(moved.lowered.len(), 1);
}

#[test]
fn what_one_does_not_want_another_may_use() {
    let rows = [
        row("a", at(0), 1_000_000, 500_000),
        row("b", at(0), 0, 25_000),
    ];
    let beat = beat(
        "a",
        &rows,
        &measured(500_000, 1_000_000, 500_000),
        at(3_000),
    );
    assert_eq!(share_of(&beat), 975_000);
}

#[test]
fn with_little_demand_the_rest_is_shared_evenly() {
    let rows = [
        row("a", at(0), 200_000, 0),
        row("b", at(0), 0, 0),
        row("c", at(0), 80_000, 0),
    ];
    // 0.25 and 0.1 are needed; a third of 0.65 comes on top.
    let a = beat("a", &rows, &measured(0, 200_000, 0), at(1_000));
    let b = beat("b", &rows, &measured(0, 0, 0), at(1_000));
    assert_eq!((share_of(&a), share_of(&b)), (466_666, 216_666));
}

/// What `a` may have, `ms` after `b` wrote its last row.
fn share_beside_one_gone(row: &Row, ms: u64) -> u32 {
    let rows = std::slice::from_ref(row);
    share_of(&beat("a", rows, &measured(0, 1_000_000, 0), at(ms)))
}

#[test]
fn one_that_is_gone_holds_what_it_used_until_that_has_left_the_minute() {
    let mut row = row("b", at(0), 600_000, 600_000);
    let claim = row.limits.get_mut("portal").unwrap();
    // Two thirds of it used in one burst that leaves after 22 s, the rest after 60 s.
    claim.used = std::array::from_fn(|i| if i < 5 { 600_000 } else { 200_000 }.into());
    row.next_ms = 1_000;
    assert_eq!(share_beside_one_gone(&row, 4_000), 400_000);
    assert_eq!(share_beside_one_gone(&row, 4_001), 400_000);
    assert_eq!(share_beside_one_gone(&row, 20_000), 400_000);
    assert_eq!(share_beside_one_gone(&row, 25_000), 800_000);
    assert_eq!(share_beside_one_gone(&row, 55_000), 800_000);
    assert_eq!(share_beside_one_gone(&row, 60_000), 1_000_000);
}

#[test]
fn one_that_is_gone_may_have_used_what_it_wanted_after_its_last_row() {
    let row = row("b", at(0), 300_000, 500_000);
    let share = |ms| share_beside_one_gone(&row, ms);
    // Wanted: counted until the minute after its next row would be over. Not wanted: less and less.
    assert_eq!(share(10_001), 1_000_000 - 300_000 - 200 * 53_999 / 64);
    assert_eq!(share(32_000), 600_000);
    assert_eq!(share(64_000), 1_000_000);
}

#[test]
fn a_row_that_is_not_to_be_written_soon_expires_all_the_same() {
    let row = Row {
        next_ms: u64::MAX,
        ..row("b", at(0), 0, 500_000)
    };
    assert_eq!(
        beat(
            "a",
            std::slice::from_ref(&row),
            &measured(0, 0, 0),
            at(91_001)
        )
        .instances,
        1
    );
    assert_eq!(share_beside_one_gone(&row, 92_000), 1_000_000);
}

#[test]
fn rows_that_nobody_needs_are_named() {
    let rows = [row("a", at(0), 0, 0), row("b", at(600_000), 0, 0)];
    let beat = beat("b", &rows, &measured(0, 0, 0), at(600_001));
    assert_eq!(beat.forgotten, ["a"]);
    assert_eq!(beat.instances, 1);
}

#[test]
fn many_instances_beat_more_slowly() {
    assert_eq!(interval_ms(1), 2_000);
    assert_eq!(interval_ms(44), 2_000);
    assert_eq!(interval_ms(100), 10_000);
    assert_eq!(interval_ms(usize::MAX), 30_000);
}

#[test]
fn a_row_is_read_as_it_was_written() {
    let row = row("a", at(5), 1, 2);
    let json = serde_json::to_string(&row).unwrap();
    assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), row);
    let claim: Claim = serde_json::from_str(r#"{"wanted":4000000000,"new":1}"#).unwrap();
    assert_eq!((claim.wanted, claim.held), (Share::WHOLE, Share::NONE));
}

#[test]
fn a_row_of_the_future_is_a_live_one() {
    let rows = [row("b", at(60_000), 0, 400_000)];
    assert_eq!(beat("a", &rows, &measured(0, 0, 0), at(0)).instances, 2);
}

fn claims() -> impl Strategy<Value = Vec<(u32, u32)>> {
    proptest::collection::vec((0u32..=1_000_000, 0u32..=1_000_000), 1..12)
}

fn rows_of(claims: &[(u32, u32)]) -> Vec<Row> {
    let numbered = claims.iter().enumerate();
    numbered
        .map(|(i, (wanted, held))| row(&i.to_string(), at(0), *wanted, *held))
        .collect()
}

proptest! {
    /// None takes what another holds, save its part of the even twentieth; and those that take at
    /// the same time, from the same rows, take no more than there is.
    #[test]
    fn shares_from_the_same_rows_never_exceed_the_limit(claims in claims()) {
        let rows = rows_of(&claims);
        let floor = 50_000 / claims.len() as u64;
        let mut sum = 0u64;
        for (i, (wanted, _)) in claims.iter().enumerate() {
            let beat = beat(&i.to_string(), &rows, &measured(0, *wanted, 0), at(1_000));
            let share = u64::from(share_of(&beat));
            let others = claims.iter().enumerate().filter(|(j, _)| *j != i);
            let held: u64 = others.map(|(_, (_, held))| u64::from(*held)).sum();
            prop_assert!(share <= 1_000_000u64.saturating_sub(held).max(floor));
            prop_assert!(share >= floor);
            sum += share;
        }
        prop_assert!(sum <= 1_000_000, "{sum}");
    }

    /// Whatever they begin with, a few rounds of beats hand out all of the limit, and once.
    #[test]
    fn shares_settle_on_the_whole_limit(claims in claims()) {
        let mut rows = rows_of(&claims);
        for _ in 0..3 {
            for (i, (wanted, _)) in claims.iter().enumerate() {
                let held = rows[i].limits["portal"].held.millionths();
                let beat = beat(&i.to_string(), &rows, &measured(0, *wanted, held), at(1_000));
                rows[i] = beat.row;
            }
        }
        let held: u64 = rows.iter().map(|row| wide(row.limits["portal"].held)).sum();
        let rounding = 2 * claims.len() as u64;
        prop_assert!((1_000_000 - rounding..=1_000_000).contains(&held), "{held}");
    }

    /// However odd the rows: no panic, and a share within the bounds.
    #[test]
    fn any_rows_are_taken(
        rows in proptest::collection::vec(
            (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<[u32; SLICES]>()), 0..5),
        now in any::<u64>(),
    ) {
        let rows: Vec<Row> = rows
            .into_iter()
            .enumerate()
            .map(|(i, (seen, next_ms, wanted, held, used))| {
                let mut row = row(&i.to_string(), Timestamp::from_unix_ms(seen), wanted, held);
                row.limits.get_mut("portal").unwrap().used = used.map(Share::from);
                Row { next_ms, ..row }
            })
            .collect();
        let beat = beat("0", &rows, &measured(0, 0, 0), Timestamp::from_unix_ms(now));
        prop_assert!(beat.next_ms >= 1_000 && beat.instances <= rows.len() + 1);
        prop_assert!(share_of(&beat) >= 10_000);
    }
}
