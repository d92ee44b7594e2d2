use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;

/// A chunk that says when it is let go of.
struct Chunk(Arc<AtomicUsize>, [u8; 1000]);

impl Chunk {
    fn bytes(alive: &Arc<AtomicUsize>) -> Bytes {
        alive.fetch_add(1, Relaxed);
        Bytes::from_owner(Self(Arc::clone(alive), [0; 1000]))
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A body of 1,000 chunks that notes how many of them were there at most.
fn watched(alive: &Arc<AtomicUsize>, most: &Arc<AtomicUsize>) -> axum::body::Body {
    let (alive, most) = (Arc::clone(alive), Arc::clone(most));
    let chunks = (0..1000).map(move |_| {
        let chunk = Chunk::bytes(&alive);
        most.fetch_max(alive.load(Relaxed), Relaxed);
        Ok::<_, std::io::Error>(chunk)
    });
    axum::body::Body::from_stream(futures_util::stream::iter(chunks))
}

#[tokio::test]
async fn a_body_that_is_discarded_is_not_kept_until_it_ends() {
    let (alive, most) = (Arc::default(), Arc::default());
    let body = watched(&alive, &most);
    discard(body, usize::MAX, Duration::from_secs(60)).await;
    assert!(most.load(Relaxed) <= 2, "{most:?} chunks at once");
    assert_eq!(alive.load(Relaxed), 0);
}

#[tokio::test]
async fn no_more_of_a_body_is_discarded_than_may_be() {
    let (alive, most) = (Arc::default(), Arc::default());
    let mut body = watched(&alive, &most);
    discard(&mut body, 10_000, Duration::from_secs(60)).await;
    let left = body.collect().await.unwrap().to_bytes().len();
    assert_eq!(left, 1_000_000 - 11_000, "the eleventh is one too many");
}

#[tokio::test]
async fn a_body_is_broken_off_where_the_room_is_full() {
    let room = Room::new(1500);
    let mut other = Part::of(&room);
    assert!(other.grow(400));
    let mut part = Part::of(&room);
    let mut body = watched(&Arc::default(), &Arc::default());
    let error = gather(&mut body, usize::MAX, &mut part).await.unwrap_err();
    assert!(matches!(error, Ungathered::NoRoom), "{error:?}");
    assert_eq!(room.used(), 1400);
    drop(part);
    assert_eq!(room.used(), 400);
}

#[tokio::test]
async fn a_body_is_put_together_as_it_comes() {
    let (alive, most) = (Arc::default(), Arc::default());
    let mut body = watched(&alive, &most);
    let room = Room::new(usize::MAX);
    let mut part = Part::of(&room);
    let gathered = gather(&mut body, usize::MAX, &mut part).await.unwrap();
    assert_eq!((gathered.bytes.len(), gathered.is_whole), (1_000_000, true));
    assert!(most.load(Relaxed) <= 3, "{most:?} chunks at once");
    assert_eq!(room.used(), 1_000_000);
}

#[tokio::test]
async fn more_than_is_wanted_of_a_body_is_left_in_it() {
    let mut body = watched(&Arc::default(), &Arc::default());
    let room = Room::new(usize::MAX);
    let gathered = gather(&mut body, 2500, &mut Part::of(&room)).await.unwrap();
    assert_eq!((gathered.bytes.len(), gathered.is_whole), (3000, false));
    let left = body.collect().await.unwrap().to_bytes().len();
    assert_eq!(left, 997_000);
}

#[tokio::test]
async fn a_body_in_one_piece_is_not_copied() {
    let bytes = Bytes::from(vec![1; 5000]);
    let mut body = axum::body::Body::from(bytes.clone());
    let room = Room::new(5000);
    let gathered = gather(&mut body, 5000, &mut Part::of(&room)).await.unwrap();
    assert_eq!(gathered.bytes.as_ptr(), bytes.as_ptr());
}

proptest! {
    #[test]
    fn what_is_taken_is_what_parts_have_and_never_more_than_the_room(
        most in 0_usize..100,
        steps in proptest::collection::vec((0_usize..4, 0_usize..60), 0..50),
    ) {
        let room = Room::new(most);
        let mut parts: Vec<Part<'_>> = (0..4).map(|_| Part::of(&room)).collect();
        let mut have = [0; 4];
        for (which, bytes) in steps {
            if bytes == 0 {
                parts[which] = Part::of(&room);
                have[which] = 0;
            } else {
                let fits = have.iter().sum::<usize>() + bytes <= most;
                prop_assert_eq!(parts[which].grow(bytes), fits);
                have[which] += if fits { bytes } else { 0 };
            }
            prop_assert_eq!(room.used(), have.iter().sum::<usize>());
        }
        drop(parts);
        prop_assert_eq!(room.used(), 0);
    }
}
