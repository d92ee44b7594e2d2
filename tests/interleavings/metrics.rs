//! Counters, while the names that are counted change.

use std::sync::Arc;

use loom::thread;

use crate::Model;
use crate::gateway::event::UsageEvent;
use crate::gateway::metrics::{Metrics, Names};

pub(crate) const MODELS: &[Model] = &[(
    "each call is counted once, also while other names are taken",
    other_names,
)];

fn other_names() {
    let metrics = Metrics::new(Arc::new(Names::new(Vec::new(), [])));
    let shard = metrics.shard();
    let counting = [0; 2].map(|_| {
        let shard = Arc::clone(&shard);
        thread::spawn(move || shard.count(&UsageEvent::default()))
    });
    metrics.adopt(Arc::new(Names::new(Vec::new(), ["portal".into()])));
    for thread in counting {
        thread.join().unwrap();
    }
    assert_eq!(metrics.ended(), 2);
}
