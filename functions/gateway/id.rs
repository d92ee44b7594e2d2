//! Ids that order by time: ULID's alphabet and layout.

use super::time::Timestamp;

/// Characters of an id.
pub const LENGTH: usize = 26;

/// ULID's alphabet, in the order of its values, which is that of ASCII, too.
const ALPHABET: [char; 32] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'J',
    'K', 'M', 'N', 'P', 'Q', 'R', 'S', 'T', 'V', 'W', 'X', 'Y', 'Z',
];

/// A new id: 26 characters, of which the first 10 are the time.
pub fn new_id(now: Timestamp, random: &mut fastrand::Rng) -> String {
    let value = (u128::from(now.unix_ms()) << 80) | (random.u128(..) >> 48);
    let mut id = String::with_capacity(LENGTH);
    for place in (0..LENGTH).rev() {
        let digit = usize::try_from((value >> (place * 5)) & 31).unwrap_or_default();
        id.extend(ALPHABET.get(digit));
    }
    id
}

/// Digits of an id that are its time.
const TIME: usize = 10;

/// What the first id of a moment begins with.
pub fn first_of(at: Timestamp) -> String {
    let digit = |place: usize| {
        let digit = (at.unix_ms() >> (place * 5)) & 31;
        ALPHABET.get(usize::try_from(digit).unwrap_or_default())
    };
    (0..TIME).rev().filter_map(digit).collect()
}

/// When an id was made; `None` where it is none.
pub fn time_of(id: &str) -> Option<Timestamp> {
    let value = |c| ALPHABET.iter().position(|digit| *digit == c);
    let ms = id.chars().take(TIME).try_fold(0u64, |ms, c| {
        Some((ms << 5) | u64::try_from(value(c)?).ok()?)
    })?;
    Some(Timestamp::from_unix_ms(ms))
}

/// The number that an id writes: its time and its random digits, 128 bits. `None` where it is none.
pub fn number_of(id: &str) -> Option<u128> {
    let digit = |c| ALPHABET.iter().position(|one| *one == c);
    // 26 digits could write 130 bits.
    let fits = id.len() == LENGTH && id.as_bytes().first().is_some_and(|first| *first <= b'7');
    let mut digits = id.chars().filter(|_| fits).map(digit);
    let number = digits.try_fold(0, |sum: u128, digit| {
        Some((sum << 5) | u128::try_from(digit?).ok()?)
    });
    number.filter(|_| fits)
}

/// A key by which later ids come first; `None` where it is no id.
pub fn newest_first(id: &str) -> Option<String> {
    let digit = |c| ALPHABET.iter().position(|one| *one == c);
    let opposite = |c| ALPHABET.get(ALPHABET.len() - 1 - digit(c)?);
    let key: Option<String> = id.chars().map(opposite).collect();
    key.filter(|key| key.len() == LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_order_by_time_and_differ() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut at = |ms| new_id(Timestamp::from_unix_ms(ms), &mut random);
        let (early, late) = (at(1000), at(1001));
        assert!(early < late && early.len() == LENGTH);
        assert_ne!(late, at(1001));
        assert!(newest_first(&early) > newest_first(&late));
        for odd in ["", "0", "u", &early.to_lowercase(), &format!("{early}0")] {
            assert_eq!(newest_first(odd), None, "{odd}");
        }
    }

    #[test]
    fn an_id_says_its_time() {
        let at = Timestamp::from_unix_ms(1_795_453_590_123);
        let id = first_of(at) + "0000000000000000";
        assert_eq!(id.len(), LENGTH);
        assert_eq!(time_of(&id), Some(at));
        assert_eq!(time_of("01J!"), None);
        let random = id.len() - TIME;
        assert_eq!(
            number_of(&id).map(|number| number >> (5 * random)),
            Some(at.unix_ms().into())
        );
    }

    #[test]
    fn an_id_is_a_number_of_128_bits() {
        assert_eq!(number_of("7ZZZZZZZZZZZZZZZZZZZZZZZZZ"), Some(u128::MAX));
        assert_eq!(number_of("00000000000000000000000011"), Some(33));
        for odd in [
            "",
            "1",
            "80000000000000000000000000",
            "0000000000000000000000000u",
        ] {
            assert_eq!(number_of(odd), None, "{odd}");
        }
    }
}
