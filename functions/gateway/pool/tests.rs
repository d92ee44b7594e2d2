use std::collections::HashMap;

use proptest::prelude::*;

use super::super::event::Kind;
use super::super::strategy::{Selection, Strategy};
use super::*;

fn deployment(backend: &str, tier: u8, weight: u32) -> Arc<Deployment> {
    Arc::new(Deployment::new(DeploymentSpec {
        backend: backend.into(),
        name: "gpt-4o".into(),
        kind: Kind::Payg,
        tier,
        weight,
        region: None,
        apps: Vec::new(),
    }))
}

fn pool(strategy: Strategy, weights: &[u32]) -> ModelPool {
    let members = weights
        .iter()
        .enumerate()
        .map(|(i, weight)| deployment(&format!("b{i}"), 1, *weight))
        .collect();
    let selection = Selection {
        strategy,
        ..Selection::default()
    };
    ModelPool::of("gpt-4o".into(), members, selection)
}

fn all(pool: &ModelPool) -> Set {
    let mut set = Set::EMPTY;
    for (index, _) in pool.members() {
        set.insert(index);
    }
    set
}

fn picks(pool: &ModelPool, set: Set, hash: u64, count: usize) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(7);
    let tier = &pool.tiers()[0];
    (0..count)
        .map(|_| pool.pick(tier, set, hash, &mut random).unwrap())
        .collect()
}

fn counts(picks: &[usize]) -> HashMap<usize, usize> {
    let mut counts = HashMap::new();
    for pick in picks {
        *counts.entry(*pick).or_default() += 1;
    }
    counts
}

#[test]
fn round_robin_spreads_evenly_by_weight() {
    let pool = pool(Strategy::WeightedRoundRobin, &[5, 1, 1]);
    assert_eq!(picks(&pool, all(&pool), 0, 7), [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn round_robin_goes_on_where_one_is_left_out() {
    let pool = pool(Strategy::WeightedRoundRobin, &[1, 1, 1]);
    let mut set = all(&pool);
    set.remove(1);
    assert_eq!(
        counts(&picks(&pool, set, 0, 10)),
        HashMap::from([(0, 5), (2, 5)])
    );
}

#[test]
fn random_keeps_to_the_weights() {
    let pool = pool(Strategy::Random, &[3, 1]);
    let counts = counts(&picks(&pool, all(&pool), 0, 4000));
    assert!((2900..3100).contains(&counts[&0]), "{counts:?}");
}

#[test]
fn least_in_flight_counts_load_by_weight() {
    let pool = pool(Strategy::LeastInFlight, &[1, 2]);
    let members: Vec<_> = pool.deployments().cloned().collect();
    let _load = (members[0].enter(), members[1].enter());
    assert_eq!(picks(&pool, all(&pool), 0, 3), [1, 1, 1]);
    let _more = (members[1].enter(), members[1].enter());
    assert_eq!(picks(&pool, all(&pool), 0, 3), [0, 0, 0]);
}

#[test]
fn lowest_latency_measures_first_and_then_stays_within_the_range() {
    let pool = pool(Strategy::LowestLatency, &[1, 1, 1]);
    let members: Vec<_> = pool.deployments().cloned().collect();
    members[0].succeeded(100_000);
    assert!(!picks(&pool, all(&pool), 0, 20).contains(&0));
    members[1].succeeded(140_000);
    members[2].succeeded(900_000);
    let counts = counts(&picks(&pool, all(&pool), 0, 3000));
    assert!(counts[&0] > 1200 && counts[&1] > 1200, "{counts:?}");
    assert!(
        (1..80).contains(&counts[&2]),
        "a slow one is measured now and then: {counts:?}"
    );
}

#[test]
fn a_hash_stays_until_its_target_is_loaded_and_then_moves_on() {
    let pool = pool(Strategy::Hash, &[1, 1, 1]);
    let home = picks(&pool, all(&pool), 42, 5);
    assert!(home.windows(2).all(|w| w[0] == w[1]), "{home:?}");
    let members: Vec<_> = pool.deployments().cloned().collect();
    let load: Vec<_> = (0..4).map(|_| members[home[0]].enter()).collect();
    assert!(!picks(&pool, all(&pool), 42, 5).contains(&home[0]));
    drop(load);
    assert_eq!(picks(&pool, all(&pool), 42, 5), home);
}

#[test]
fn hashes_spread_by_weight_and_move_only_from_the_one_that_left() {
    let pool = pool(Strategy::Hash, &[1, 1, 2]);
    let whole = all(&pool);
    let mut without = whole;
    without.remove(0);
    let mut found = Vec::new();
    for key in 0..2000u64 {
        let hash = hash_key(&key.to_le_bytes());
        let before = picks(&pool, whole, hash, 1)[0];
        let after = picks(&pool, without, hash, 1)[0];
        assert!(before == 0 || before == after);
        found.push(before);
    }
    let counts = counts(&found);
    assert!((900..1100).contains(&counts[&2]), "{counts:?}");
    assert!((400..600).contains(&counts[&0]), "{counts:?}");
}

#[test]
fn models_are_found_by_name_and_deployments_keep_the_configurations_order() {
    let spec = |backend: &str, tier| deployment(backend, tier, 1).spec.clone();
    let pool = Pool::new(
        [
            ("a".into(), spec("x", 2)),
            ("b".into(), spec("y", 1)),
            ("a".into(), spec("z", 1)),
        ],
        |_| Selection::default(),
    );
    let backends: Vec<&str> = pool
        .deployments()
        .iter()
        .map(|d| &*d.spec.backend)
        .collect();
    assert_eq!(backends, ["x", "y", "z"]);
    let a: Vec<&str> = pool
        .model("a")
        .unwrap()
        .deployments()
        .map(|d| &*d.spec.backend)
        .collect();
    assert_eq!(a, ["z", "x"], "the lower tier first");
    assert_eq!(&**pool.model("a").unwrap().name(), "a");
    assert!(pool.model("c").is_none());
    assert_eq!(pool.models().count(), 2);
}

fn any_strategy() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![
        Just(Strategy::WeightedRoundRobin),
        Just(Strategy::Random),
        Just(Strategy::LeastInFlight),
        Just(Strategy::LowestLatency),
        Just(Strategy::Hash),
    ]
}

proptest! {
    #[test]
    fn every_strategy_picks_one_that_is_available(
        strategy in any_strategy(),
        weights in prop::collection::vec(1u32..1000, 1..MAX_DEPLOYMENTS + 4),
        bits in any::<u64>(),
        loads in prop::collection::vec((0usize..64, 1u64..1_000_000), 0..40),
        hash in any::<u64>(),
    ) {
        let pool = pool(strategy, &weights);
        let members: Vec<_> = pool.deployments().cloned().collect();
        let mut guards = Vec::new();
        for (index, us) in loads {
            if let Some(member) = members.get(index) {
                guards.push(member.enter());
                member.succeeded(us);
            }
        }
        let mut set = Set::EMPTY;
        for (index, _) in pool.members().filter(|(index, _)| bits & (1 << (index % 64)) != 0) {
            set.insert(index);
        }
        let mut random = fastrand::Rng::with_seed(hash);
        let picked = pool.pick(&pool.tiers()[0], set, hash, &mut random);
        prop_assert_eq!(picked.is_some(), !set.is_empty());
        prop_assert!(picked.is_none_or(|index| set.contains(index)));
    }

    #[test]
    fn round_robin_gives_each_exactly_its_share(weights in prop::collection::vec(1u32..20, 1..8)) {
        let pool = pool(Strategy::WeightedRoundRobin, &weights);
        let total: u32 = weights.iter().sum();
        let counts = counts(&picks(&pool, all(&pool), 0, total as usize));
        for (index, weight) in weights.iter().enumerate() {
            prop_assert_eq!(counts.get(&index).copied().unwrap_or(0), *weight as usize);
        }
    }

    #[test]
    fn least_in_flight_never_passes_one_over_that_has_less_for_its_weight(
        members in prop::collection::vec((1u32..10, 0usize..12), 2..9),
        seed in any::<u64>(),
    ) {
        let weights: Vec<u32> = members.iter().map(|(weight, _)| *weight).collect();
        let pool = pool(Strategy::LeastInFlight, &weights);
        let mut guards = Vec::new();
        for (deployment, (_, load)) in pool.deployments().zip(&members) {
            guards.extend((0..*load).map(|_| deployment.enter()));
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let picked = pool.pick(&pool.tiers()[0], all(&pool), 0, &mut random).unwrap();
        let (weight, load) = members[picked];
        for (other_weight, other_load) in members {
            prop_assert!(load * other_weight as usize <= other_load * weight as usize);
        }
    }

    #[test]
    fn lowest_latency_stays_within_its_range_but_for_one_in_fifty(
        micros in prop::collection::vec(1u64..400_000, 2..9),
        seed in any::<u64>(),
    ) {
        let pool = pool(Strategy::LowestLatency, &vec![1; micros.len()]);
        for (deployment, us) in pool.deployments().zip(&micros) {
            deployment.succeeded(*us);
        }
        let limit = micros.iter().min().unwrap() + 50_000;
        let mut random = fastrand::Rng::with_seed(seed);
        let slow = (0..500)
            .filter_map(|_| pool.pick(&pool.tiers()[0], all(&pool), 0, &mut random))
            .filter(|index| micros[*index] > limit)
            .count();
        // Some 10 are expected at most; over 40 have a probability of about 10^-13 (Poisson).
        prop_assert!(slow <= 40, "{slow} of 500");
    }

    #[test]
    fn a_hash_keeps_its_home_and_its_bound(
        loads in prop::collection::vec(0usize..12, 2..9),
        hash in any::<u64>(),
    ) {
        let pool = pool(Strategy::Hash, &vec![1; loads.len()]);
        let home = picks(&pool, all(&pool), hash, 1)[0];
        let mut guards = Vec::new();
        for (deployment, load) in pool.deployments().zip(&loads) {
            guards.extend((0..*load).map(|_| deployment.enter()));
        }
        let picked = picks(&pool, all(&pool), hash, 1)[0];
        // 125 % of the mean load, this call counted.
        let bound = ((guards.len() + 1) * 125).div_ceil(loads.len() * 100);
        prop_assert!(loads[picked] < bound, "{picked} has {} of {bound}", loads[picked]);
        prop_assert_eq!(picked == home, loads[home] < bound);
    }
}
