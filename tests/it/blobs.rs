//! What every store of blobs does, wherever it keeps them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use spillway::store::blobs::bounds::{MAX_PAGE, MAX_PART};
use spillway::store::blobs::embedded::Embedded;
use spillway::store::blobs::reading::{stream, whole};
use spillway::store::blobs::upload::Upload;
use spillway::store::blobs::{Blob, BlobError, Blobs, Container, Seen, When};

use crate::azurite::Azurite;

fn blob(name: &str) -> Blob {
    Blob::new(Container::Files, name)
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Bytes {
    let bytes = (0..length).map(|at| u8::try_from(at % 251).unwrap());
    bytes.collect()
}

async fn text(blobs: &dyn Blobs, name: &str) -> Option<Bytes> {
    whole(blobs, &blob(name), 64 << 20).await.unwrap()
}

/// Runs every check on a new, empty store.
pub(crate) async fn check(blobs: &Arc<dyn Blobs>) {
    a_blob_is_read_as_it_was_written(&**blobs).await;
    a_blob_that_may_not_be_there_keeps_its_first_writer(&**blobs).await;
    a_range_ends_where_the_blob_does(&**blobs).await;
    an_upload_is_there_whole_or_not_at_all(blobs).await;
    an_append_needs_the_end(&**blobs).await;
    a_version_is_read_once(&**blobs).await;
    a_list_goes_page_by_page_in_order(&**blobs).await;
    what_is_out_of_bounds_is_refused(&**blobs).await;
}

#[tokio::test]
async fn the_embedded_store_does_what_every_store_of_blobs_does() {
    let folder = tempfile::tempdir().unwrap();
    let blobs: Arc<dyn Blobs> = Arc::new(Embedded::open(folder.path()).unwrap());
    check(&blobs).await;
}

#[tokio::test]
async fn azure_blobs_do_what_every_store_of_blobs_does() {
    let azurite = Azurite::start_blobs();
    let blobs: Arc<dyn Blobs> = Arc::new(azurite.blobs());
    check(&blobs).await;
}

#[tokio::test]
async fn containers_are_made_once_whoever_comes_first() {
    let azurite = Azurite::start_blobs();
    let (first, second) = (azurite.blobs(), azurite.blobs());
    let (a, b) = tokio::join!(first.make_containers(), second.make_containers());
    assert_eq!((a, b), (Ok(()), Ok(())));
    assert_eq!(second.length(&blob("x")).await, Ok(None));
}

#[tokio::test]
async fn blob_storage_that_is_not_there_is_unavailable() {
    let azurite = Azurite::start_blobs();
    let blobs = azurite.blobs();
    blobs.make_containers().await.unwrap();
    drop(azurite);
    let put = blobs.put(&blob("x"), Bytes::from("1"), When::Always).await;
    assert!(matches!(put, Err(BlobError::Unavailable(_))), "{put:?}");
    let read = blobs.read(&blob("x"), 0..1).await;
    assert!(matches!(read, Err(BlobError::Unavailable(_))), "{read:?}");
}

async fn a_version_is_read_once(blobs: &dyn Blobs) {
    let one = Blob::new(Container::ConfigHistory, "versions/x.toml");
    assert_eq!(blobs.look(&one, None).await, Ok(Seen::Absent));
    let mut known = None;
    for content in ["first", "second", ""] {
        let bytes = Bytes::from(content);
        blobs.put(&one, bytes, When::Always).await.unwrap();
        let seen = blobs.look(&one, known.as_deref()).await.unwrap();
        let Seen::Changed(version) = seen else {
            panic!("{seen:?}");
        };
        assert_eq!(version.bytes, content);
        let years = version.written.rfc3339();
        assert!(years.as_str() > "2024", "{years}");
        let same = blobs.look(&one, Some(&version.tag)).await;
        assert_eq!(same, Ok(Seen::Same));
        known = Some(version.tag);
    }
    let nowhere = Blob::new(Container::Config, "x.toml");
    assert_eq!(blobs.look(&nowhere, None).await, Ok(Seen::Absent));
    let large = pattern(MAX_PART + 1);
    blobs.put(&one, large, When::Always).await.unwrap();
    let seen = blobs.look(&one, None).await;
    assert!(matches!(seen, Err(BlobError::Refused(_))), "{seen:?}");
}

async fn a_blob_is_read_as_it_was_written(blobs: &dyn Blobs) {
    let name = "as-written/2026-11-25/app=20one.json";
    assert_eq!(text(blobs, name).await, None);
    assert_eq!(blobs.length(&blob(name)).await, Ok(None));
    assert_eq!(blobs.read(&blob(name), 0..9).await, Ok(None));
    for content in [pattern(3 * MAX_PART / 2), Bytes::new(), pattern(5)] {
        let blob = blob(name);
        let put = blobs.put(&blob, content.clone(), When::Always);
        put.await.unwrap();
        assert_eq!(text(blobs, name).await, Some(content));
    }
    let elsewhere = Blob::new(Container::Prompts, name);
    assert_eq!(blobs.length(&elsewhere).await, Ok(None));
    assert_eq!(blobs.delete(&blob(name)).await, Ok(true));
    assert_eq!(blobs.delete(&blob(name)).await, Ok(false));
    assert_eq!(text(blobs, name).await, None);
}

async fn a_blob_that_may_not_be_there_keeps_its_first_writer(blobs: &dyn Blobs) {
    let name = blob("first");
    let put = |content: &'static str| blobs.put(&name, Bytes::from(content), When::Absent);
    let (a, b) = tokio::join!(put("a"), put("b"));
    let (won, lost) = if a.is_ok() { ("a", b) } else { ("b", a) };
    assert_eq!(lost, Err(BlobError::Exists));
    assert_eq!(text(blobs, "first").await, Some(won.into()));
}

async fn a_range_ends_where_the_blob_does(blobs: &dyn Blobs) {
    let name = blob("ranges");
    let content = Bytes::from("0123456789");
    blobs.put(&name, content, When::Always).await.unwrap();
    for (range, read) in [
        (0..4, "0123"),
        (8..100, "89"),
        (10..11, ""),
        (99..100, ""),
        (3..3, ""),
    ] {
        let part = blobs.read(&name, range.clone()).await;
        assert_eq!(part, Ok(Some(read.into())), "{range:?}");
    }
}

async fn an_upload_is_there_whole_or_not_at_all(blobs: &Arc<dyn Blobs>) {
    let content = pattern(2 * MAX_PART + 77);
    let upload = || Upload::new(Arc::clone(blobs), blob("upload"));
    let mut dropped = upload();
    dropped.write(&content).await.unwrap();
    drop(dropped);
    assert_eq!(text(&**blobs, "upload").await, None);
    let mut whole = upload();
    for piece in content.chunks(300_001) {
        whole.write(piece).await.unwrap();
    }
    let length = u64::try_from(content.len()).unwrap();
    assert_eq!(whole.finish().await, Ok(length));
    assert_eq!(text(&**blobs, "upload").await, Some(content.clone()));
    let parts = stream(Arc::clone(blobs), blob("upload"), 9..length - 9);
    let parts: Vec<Bytes> = parts.try_collect().await.unwrap();
    assert!(parts.len() > 2 && parts.concat() == content[9..content.len() - 9]);
    let mut small = upload();
    small.write(b"small").await.unwrap();
    assert_eq!(small.finish().await, Ok(5));
    assert_eq!(text(&**blobs, "upload").await, Some("small".into()));
    assert_eq!(upload().finish().await, Ok(0));
    assert_eq!(text(&**blobs, "upload").await, Some(Bytes::new()));
}

async fn an_append_needs_the_end(blobs: &dyn Blobs) {
    let name = blob("log");
    let append = |at, content: &'static str| blobs.append(&name, at, Bytes::from(content));
    let elsewhere = Err(BlobError::EndsElsewhere);
    assert_eq!(append(3, "none is there").await, elsewhere);
    append(0, "one\n").await.unwrap();
    assert_eq!(append(0, "again\n").await, elsewhere);
    assert_eq!(append(3, "within\n").await, elsewhere);
    assert_eq!(append(5, "beyond\n").await, elsewhere);
    append(4, "two\n").await.unwrap();
    assert_eq!(blobs.length(&name).await, Ok(Some(8)));
    assert_eq!(text(blobs, "log").await, Some("one\ntwo\n".into()));
    blobs.delete(&name).await.unwrap();
    append(0, "new\n").await.unwrap();
    assert_eq!(text(blobs, "log").await, Some("new\n".into()));
}

async fn a_list_goes_page_by_page_in_order(blobs: &dyn Blobs) {
    let container = Container::Replies;
    let mut names: Vec<String> = ["a/1", "a/10", "a/2/x", "a.b", "b/1"]
        .map(Into::into)
        .into();
    for name in &names {
        let put = Blob::new(container, name.as_str());
        blobs
            .put(&put, Bytes::from("12"), When::Always)
            .await
            .unwrap();
    }
    names.sort();
    let list = async |prefix| blobs.list(container, prefix, None).await.unwrap();
    let of = |page: &spillway::store::blobs::Listing| -> Vec<String> {
        assert!(page.blobs.iter().all(|(_, length)| *length == 2));
        page.blobs.iter().map(|(name, _)| name.clone()).collect()
    };
    let all = list("").await;
    assert_eq!((of(&all), &all.next), (names, &None));
    assert_eq!(of(&list("a/").await), ["a/1", "a/10", "a/2/x"]);
    assert_eq!(of(&list("a/1").await), ["a/1", "a/10"]);
    assert_eq!(of(&list("a/2/").await), ["a/2/x"]);
    assert!(list("c/").await.blobs.is_empty());
    many_blobs_come_in_pages(blobs).await;
}

async fn many_blobs_come_in_pages(blobs: &dyn Blobs) {
    let names: Vec<String> = (0..=MAX_PAGE).map(|n| format!("many/{n:05}")).collect();
    let put = async |name: &String| {
        let blob = Blob::new(Container::Replies, name.as_str());
        blobs
            .put(&blob, Bytes::from("x"), When::Always)
            .await
            .unwrap();
    };
    for some in names.chunks(50) {
        futures_util::future::join_all(some.iter().map(put)).await;
    }
    let (mut found, mut after): (Vec<String>, Option<String>) = Default::default();
    loop {
        let page = blobs.list(Container::Replies, "many/", after.as_deref());
        let page = page.await.unwrap();
        assert!(page.blobs.len() <= MAX_PAGE);
        found.extend(page.blobs.into_iter().map(|(name, _)| name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, names);
}

async fn what_is_out_of_bounds_is_refused(blobs: &dyn Blobs) {
    let large = pattern(MAX_PART + 1);
    let length = u64::try_from(large.len()).unwrap();
    let name = blob("bounds");
    let refused = [
        blobs.put(&blob("../x"), Bytes::new(), When::Always).await,
        blobs.stage(&name, 0, large.clone()).await,
        blobs.stage(&name, 50_000, Bytes::from("x")).await,
        blobs.append(&name, 0, large).await,
        blobs.append(&name, 0, Bytes::new()).await,
        blobs.read(&name, 0..length).await.map(drop),
        blobs.list(Container::Files, "../", None).await.map(drop),
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        assert!(
            matches!(refused, Err(BlobError::Refused(_))),
            "{number}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn blobs_outlast_the_process_and_what_was_half_done_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Embedded::open(folder.path());
    let first = open().unwrap();
    let busy = open().unwrap_err().to_string();
    assert!(busy.contains("another process"), "{busy}");
    first
        .put(&blob("a"), Bytes::from("1"), When::Absent)
        .await
        .unwrap();
    first
        .append(&blob("log"), 0, Bytes::from("one\n"))
        .await
        .unwrap();
    first
        .stage(&blob("half"), 0, Bytes::from("x"))
        .await
        .unwrap();
    drop(first);
    // A crash in the middle of an append: bytes beyond the length that counts.
    let file = folder.path().join("blobs/files/log,blob");
    std::fs::write(&file, "one\ntw").unwrap();
    let second = open().unwrap();
    assert_eq!(text(&second, "a").await, Some("1".into()));
    assert_eq!(text(&second, "log").await, Some("one\n".into()));
    second
        .append(&blob("log"), 4, Bytes::from("2\n"))
        .await
        .unwrap();
    assert_eq!(text(&second, "log").await, Some("one\n2\n".into()));
    assert!(second.commit(&blob("half"), 1).await.is_err());
    assert_eq!(text(&second, "half").await, None);
}
