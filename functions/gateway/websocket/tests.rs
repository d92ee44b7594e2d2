use proptest::prelude::*;

use super::*;

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

/// Texts, where a close begins, and whether it ended between messages.
type Read = (Vec<Vec<u8>>, Option<usize>, bool);

/// What is read of `bytes` in pieces of `size`.
fn read(mut frames: Frames, bytes: &[u8], size: usize) -> Result<Read, FrameError> {
    let (mut texts, mut current, mut close) = (Vec::new(), Vec::new(), None);
    for (number, piece) in bytes.chunks(size).enumerate() {
        let found = frames.push(piece, |text| match text {
            Text::Part(part) => current.extend(part),
            Text::End => texts.push(std::mem::take(&mut current)),
        })?;
        close = close.or(found.map(|at| number * size + at));
    }
    Ok((texts, close, frames.is_between_messages()))
}

fn server(bytes: &[u8], size: usize) -> Result<Read, FrameError> {
    read(Frames::of_server(1 << 20), bytes, size)
}

#[test]
fn texts_are_read_however_they_come() {
    let mut first = frame(TEXT, b"Hello, ", None);
    first[0] &= 0x7f;
    let long = vec![b'x'; 70_000];
    let all = [
        first,
        frame(PING, b"!", None),
        frame(CONTINUATION, b"world", None),
        frame(BINARY, b"\xff", None),
        frame(TEXT, &[b'y'; 300], None),
        frame(TEXT, b"", None),
        frame(TEXT, &long, None),
        frame(CLOSE, &closing(1000, "bye"), None),
    ];
    let close_at = all[..7].iter().map(Vec::len).sum();
    let all = all.concat();
    for size in [1, 2, 7, 1000, all.len()] {
        let (texts, close, is_between) = server(&all, size).unwrap();
        assert_eq!(texts.len(), 4, "{size}");
        assert_eq!(texts[0], b"Hello, world");
        assert_eq!((texts[1].len(), texts[2].len()), (300, 0));
        assert!(texts[3] == long && is_between);
        assert_eq!(close, Some(close_at));
    }
}

#[test]
fn a_clients_frames_are_masked_and_not_read() {
    let all = [frame(TEXT, b"secret", MASK), frame(PONG, b"", MASK)].concat();
    let client = || Frames::of_client(100);
    assert_eq!(read(client(), &all, 3).unwrap(), (vec![], None, true));
    assert!(matches!(server(&all, 3), Err(FrameError::Protocol(_))));
    let plain = frame(TEXT, b"x", None);
    assert!(matches!(
        read(client(), &plain, 3),
        Err(FrameError::Protocol(_))
    ));
    assert_eq!(
        frame(TEXT, b"abcde", MASK)[6..],
        [b'a' ^ 1, b'b' ^ 2, b'c' ^ 3, b'd' ^ 4, b'e' ^ 1]
    );
}

#[test]
fn a_message_that_is_too_long_is_known_by_its_head() {
    let mut first = frame(TEXT, &[b'x'; 60], MASK);
    first[0] &= 0x7f;
    let second = frame(CONTINUATION, &[b'x'; 60], MASK);
    let all = [first, second[..6].to_vec()].concat();
    assert_eq!(
        read(Frames::of_client(100), &all, 9),
        Err(FrameError::TooLong)
    );
    assert_eq!(FrameError::TooLong.code(), 1009);
}

#[test]
fn what_breaks_the_protocol_does_not_pass() {
    let mut compressed = frame(TEXT, b"x", None);
    compressed[0] |= 0x40;
    let mut cut_ping = frame(PING, b"x", None);
    cut_ping[0] &= 0x7f;
    let mut open = frame(TEXT, b"x", None);
    open[0] &= 0x7f;
    let bad = [
        compressed,
        cut_ping,
        frame(PING, &[0; 126], None),
        frame(CONTINUATION, b"x", None),
        frame(3, b"x", None),
        [open, frame(TEXT, b"y", None)].concat(),
        [frame(CLOSE, b"", None), frame(TEXT, b"y", None)].concat(),
    ];
    for bytes in bad {
        let error = server(&bytes, 4).unwrap_err();
        assert_eq!(error.code(), 1002, "{error:?}");
        assert!(!error.as_str().is_empty());
    }
}

#[test]
fn a_reason_is_cut_to_what_fits() {
    let payload = closing(1008, &"é".repeat(100));
    assert_eq!(
        (payload.len(), &payload[..2]),
        (124, &1008_u16.to_be_bytes()[..])
    );
    assert!(std::str::from_utf8(&payload[2..]).is_ok());
}

#[test]
fn in_the_middle_of_a_frame_nothing_can_be_put_in() {
    let whole = frame(TEXT, b"Hello", None);
    let mut frames = Frames::of_server(100);
    for byte in &whole[..whole.len() - 1] {
        frames.push(&[*byte], |_| {}).unwrap();
        assert!(!frames.is_between_frames());
    }
    frames.push(&whole[whole.len() - 1..], |_| {}).unwrap();
    assert!(frames.is_between_frames() && frames.is_between_messages());
}

proptest! {
    #[test]
    fn any_bytes_are_read_alike_however_they_come(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..50) {
        let by_piece = read(Frames::of_server(1000), &bytes, size);
        prop_assert_eq!(by_piece, read(Frames::of_server(1000), &bytes, bytes.len().max(1)));
    }
}
