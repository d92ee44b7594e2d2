use proptest::prelude::*;

use super::*;

const CHAT: &str = concat!(
    "data: {\"choices\":[],\"prompt_filter_results\":[{}],\"id\":\"\",\"usage\":null}\n\n",
    "data: {\"id\":\"chatcmpl-7\",\"choices\":[{\"delta\":{\"content\":\"Hej\"}}],\"usage\":null}\n\n",
    ": keep-alive\n\n",
    "data: {\"id\":\"chatcmpl-7\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
);
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3,\"total_tokens\":15,\"prompt_tokens_details\":{\"cached_tokens\":4}},\"obfuscation\":\"t9\"}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn run(scanner: &mut SseScanner, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(text.len());
    let mut out = Vec::new();
    let mut from = 0;
    for cut in cuts {
        let chunk = Bytes::copy_from_slice(&text[from..cut]);
        scanner.push(&chunk, |part| out.extend_from_slice(&part));
        from = cut;
    }
    scanner.finish(|part| out.extend_from_slice(&part));
    out
}

fn tokens() -> Tokens {
    Tokens {
        input: 12,
        output: 3,
        cached: 4,
        ..Tokens::default()
    }
}

#[test]
fn a_stream_passes_unchanged_and_its_usage_is_read() {
    let text = [CHAT, USAGE, DONE].concat();
    let mut scanner = SseScanner::new(TextKeys::Chat, false);
    assert_eq!(run(&mut scanner, text.as_bytes(), &[]), text.as_bytes());
    assert_eq!(scanner.seen().usage, Some(tokens()));
    assert_eq!(scanner.seen().id.as_deref(), Some("chatcmpl-7"));
    assert_eq!((scanner.seen().events, scanner.text_bytes()), (6, 3));
    assert!(scanner.at_boundary());
}

#[test]
fn the_service_tier_is_that_which_an_answer_ends_with() {
    let event = |tier: &str| {
        let response = format!(r#"{{"response":{{"id":"r","service_tier":{tier}}}}}"#);
        format!("data: {response}\n\n")
    };
    for (tiers, last) in [
        (["\"auto\"", "\"priority\""], Some(ServiceTier::Priority)),
        (["\"priority\"", "\"default\""], Some(ServiceTier::Standard)),
        (["\"priority\"", "null"], Some(ServiceTier::Priority)),
        (["null", "7"], None),
    ] {
        let text = tiers.map(event).concat();
        let mut scanner = SseScanner::new(TextKeys::Deltas, false);
        run(&mut scanner, text.as_bytes(), &[30, 70]);
        assert_eq!(scanner.seen().service_tier, last, "{text}");
    }
}

#[test]
fn a_chunk_goes_out_without_a_copy() {
    let chunk = Bytes::from(CHAT);
    for hides_usage in [false, true] {
        let mut out = Vec::new();
        SseScanner::new(TextKeys::Chat, hides_usage).push(&chunk, |part| out.push(part));
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].as_ptr(), chunk.as_ptr());
    }
}

#[test]
fn an_event_leaves_as_soon_as_it_cannot_be_the_usage_chunk() {
    let mut scanner = SseScanner::new(TextKeys::Chat, true);
    let mut out = Vec::new();
    let push = |scanner: &mut SseScanner, text: &'static str, out: &mut Vec<u8>| {
        scanner.push(&Bytes::from_static(text.as_bytes()), |part| {
            out.extend_from_slice(&part)
        });
    };
    push(&mut scanner, "data: {\"id\":\"a\",", &mut out);
    assert_eq!(out, b"", "it may still be the usage chunk");
    push(&mut scanner, "\"choices\":[{", &mut out);
    assert_eq!(out, b"data: {\"id\":\"a\",\"choices\":[{");
    push(&mut scanner, "\"delta\"", &mut out);
    assert!(out.ends_with(b"\"delta\""));
    assert!(!scanner.at_boundary());
}

#[test]
fn an_event_too_long_to_be_the_usage_chunk_is_not_held() {
    let mut scanner = SseScanner::new(TextKeys::Chat, true);
    let long = Bytes::from(format!(
        "data: {{\"choices\":[],\"x\":\"{}",
        "y".repeat(MAX_HELD)
    ));
    let mut out = 0;
    scanner.push(&long, |part| out += part.len());
    assert_eq!(out, long.len());
    let end = Bytes::from_static(b"\",\"usage\":{\"prompt_tokens\":1}}\n\n");
    scanner.push(&end, |part| out += part.len());
    assert_eq!(out, long.len() + end.len());
    assert_eq!(scanner.seen().usage.map(|t| t.input), Some(1));
}

#[test]
fn a_stream_that_breaks_off_gives_out_what_was_held() {
    let mut scanner = SseScanner::new(TextKeys::Chat, true);
    let text = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":";
    assert_eq!(run(&mut scanner, text, &[10]), text);
}

#[test]
fn the_responses_events_tell_id_and_usage() {
    let text = concat!(
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_9\",\"usage\":null}}\n\n",
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"four\"}\n\n",
        "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_9\",\"usage\":{\"input_tokens\":8,\"output_tokens\":2,\"total_tokens\":10}}}\n\n",
    );
    let mut scanner = SseScanner::new(TextKeys::Deltas, false);
    run(&mut scanner, text.as_bytes(), &[30, 60]);
    assert_eq!(scanner.seen().id.as_deref(), Some("resp_9"));
    assert_eq!(
        scanner.seen().usage.map(|t| (t.input, t.output)),
        Some((8, 2))
    );
    assert_eq!(scanner.text_bytes(), 4);
}

#[test]
fn an_error_event_is_noticed() {
    let mut scanner = SseScanner::new(TextKeys::Chat, false);
    run(
        &mut scanner,
        b"data: {\"error\":{\"code\":\"429\"}}\n\n",
        &[],
    );
    assert!(scanner.seen().error);
}

proptest! {
    #[test]
    fn wherever_it_is_cut_the_usage_chunk_is_hidden_and_read(
        cuts in prop::collection::vec(0usize..4000, 0..12),
        line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let shape = |parts: &[&str]| parts.concat().replace('\n', line_end);
        let text = shape(&[CHAT, USAGE, DONE]);
        let mut scanner = SseScanner::new(TextKeys::Chat, true);
        let out = run(&mut scanner, text.as_bytes(), &cuts);
        prop_assert_eq!(String::from_utf8(out).unwrap(), shape(&[CHAT, DONE]));
        prop_assert_eq!(scanner.seen().usage, Some(tokens()));
        prop_assert_eq!(scanner.text_bytes(), 3);
    }
}

#[test]
fn at_every_boundary_the_usage_chunk_is_hidden_and_read() {
    for line_end in ["\n", "\r\n", "\r"] {
        let shape = |parts: &[&str]| parts.concat().replace('\n', line_end).into_bytes();
        let (text, expected) = (shape(&[CHAT, USAGE, DONE]), shape(&[CHAT, DONE]));
        let mut cuts: Vec<Vec<usize>> = vec![(0..text.len()).collect()];
        for at in 0..text.len() {
            cuts.extend([vec![at], vec![at, at + 1], vec![at, at + 2]]);
        }
        for cuts in cuts {
            let mut scanner = SseScanner::new(TextKeys::Chat, true);
            assert_eq!(run(&mut scanner, &text, &cuts), expected, "{cuts:?}");
            assert_eq!(scanner.seen().usage, Some(tokens()), "{cuts:?}");
            assert_eq!(scanner.text_bytes(), 3, "{cuts:?}");
        }
    }
}

/// Pieces of streams in any order, and bytes that often make lines, fields and JSON, so that
/// random strings reach every state.
fn random_bytes(rng: &mut fastrand::Rng) -> Vec<u8> {
    const LIKELY: &[u8] = b"data: \n\r{}[]\":,\\usagechoi0";
    const PIECES: [&str; 7] = [
        USAGE,
        "data: {\"choices\":[],\"usage\":{\"total_tokens\":7}}\r\n\r\n",
        "data: {\"choices\":[{}],\"usage\":{\"total_tokens\":7}}\n\n",
        "data:{\"usage\":",
        "\n\ndata: ",
        "\r\n\r\n",
        "data: [DONE]\n\n",
    ];
    let mut bytes = Vec::new();
    while bytes.len() < 160 && rng.u8(..32) > 0 {
        match rng.u8(..16) {
            0 => bytes.extend(PIECES[rng.usize(..PIECES.len())].bytes()),
            1 => bytes.push(rng.u8(..)),
            _ => bytes.push(LIKELY[rng.usize(..LIKELY.len())]),
        }
    }
    bytes
}

/// A loop and no property: 100,000 strings in a few seconds. The seed names the one that failed.
#[test]
fn what_comes_out_of_100_000_random_streams_is_what_went_in() {
    let mut hidden = 0;
    for seed in 0..100_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let bytes = random_bytes(&mut rng);
        let cuts: Vec<_> = (0..rng.usize(..6)).map(|_| rng.usize(..400)).collect();
        let mut whole = SseScanner::new(TextKeys::Chat, true);
        let expected = run(&mut whole, &bytes, &[]);
        let mut scanner = SseScanner::new(TextKeys::Chat, false);
        assert_eq!(run(&mut scanner, &bytes, &cuts), bytes, "seed {seed}");
        let mut hiding = SseScanner::new(TextKeys::Chat, true);
        assert_eq!(run(&mut hiding, &bytes, &cuts), expected, "seed {seed}");
        for cut in [&scanner, &hiding] {
            assert_eq!(cut.seen(), whole.seen(), "seed {seed}");
            assert_eq!(cut.text_bytes(), whole.text_bytes(), "seed {seed}");
        }
        assert!(
            whole.seen().usage.is_some() || expected == bytes,
            "seed {seed}"
        );
        hidden += usize::from(expected != bytes);
    }
    assert!(hidden > 1000, "the strings hid only {hidden} usage chunks");
}
