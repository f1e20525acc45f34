//! Payloads as applications publish them: quotes, chat, a match feed, orders.
//!
//! Each is a function of seed, stream and place in the stream, so that whoever receives one can make it again and compare,
//! and two runs publish the same. Texts repeat as an application's do and numbers wander as its figures do, since that is
//! what compressors live on.
//!
//! Imports nothing of the tester's: the server's benchmarks make the same payloads with it.

use std::io::Write;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What kind of application publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum PayloadKind {
    /// Quotes of eight instruments, some 179 bytes.
    Ticks,
    /// Chat messages, some 250 bytes.
    Chat,
    /// What happens in a football match, some 265 bytes.
    Match,
    /// Orders of a shop, some 512 bytes.
    Json512,
    /// The same, some 1,024 bytes.
    Json1024,
}

/// A payload's place among all.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Chooses all that is random.
    pub seed: u64,
    /// The channel or the user.
    pub stream: u32,
    /// Place in the stream.
    pub sequence: u64,
}

impl PayloadKind {
    /// Writes a payload with this stamp in it, which stands for the time and the number that an application would send;
    /// says where in the payload the stamp is.
    pub fn write(self, place: Place, stamp: &[u8], payload: &mut Vec<u8>) -> usize {
        payload.clear();
        let dice = Dice::new(place);
        // Writing to a Vec cannot fail.
        let _ = match self {
            PayloadKind::Ticks => write_tick(&dice, payload),
            PayloadKind::Chat => write_chat(&dice, payload),
            PayloadKind::Match => write_event(&dice, payload),
            PayloadKind::Json512 => write_order(&dice, 4, payload),
            PayloadKind::Json1024 => write_order(&dice, 12, payload),
        };
        payload.extend_from_slice(b",\"stamp\":\"");
        let stamp_place = payload.len();
        payload.extend_from_slice(stamp);
        payload.extend_from_slice(b"\"}");
        stamp_place
    }
}

/// What is random in one payload. Each use has a number of its own.
struct Dice {
    place: Place,
}

impl Dice {
    fn new(place: Place) -> Dice {
        Dice { place }
    }

    /// One of `count`.
    fn below(&self, count: u64, number: u64) -> u64 {
        mix(self.place.sequence ^ mix(number ^ self.key())) % count
    }

    /// One of a list whose first are frequent and whose last are rare.
    fn pick_unevenly<'a>(&self, list: &[&'a str], number: u64) -> &'a str {
        let share = self.below(1 << 20, number) as f64 / (1 << 20) as f64;
        list[(share * share * share * list.len() as f64) as usize]
    }

    /// A figure that wanders: steps of about 1, and the further apart two payloads are, the further apart their figures.
    fn walk(&self, number: u64) -> f64 {
        let key = mix(number ^ self.key());
        (0..18)
            .map(|octave| {
                let at = |cell: u64| mix(cell ^ mix(octave ^ key)) as f64 / u64::MAX as f64 - 0.5;
                let cell = self.place.sequence >> octave;
                let part = (self.place.sequence - (cell << octave)) as f64 / (1u64 << octave) as f64;
                (at(cell) * (1.0 - part) + at(cell + 1) * part) * 2f64.powf(octave as f64 / 2.0)
            })
            .sum()
    }

    /// The same for every payload of the stream.
    fn key(&self) -> u64 {
        mix(self.place.seed ^ mix(u64::from(self.place.stream)))
    }
}

/// Spreads a number over all 64 bits (SplitMix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Instruments, with their usual price in hundred-thousandths.
const INSTRUMENTS: [(&str, u32); 8] = [
    ("EURUSD", 108_340),
    ("GBPUSD", 126_710),
    ("AUDUSD", 66_120),
    ("NZDUSD", 60_980),
    ("USDCAD", 137_450),
    ("USDCHF", 88_210),
    ("EURGBP", 85_470),
    ("EURCHF", 95_530),
];

fn write_tick(dice: &Dice, payload: &mut Vec<u8>) -> std::io::Result<()> {
    let instrument = dice.below(INSTRUMENTS.len() as u64, 0);
    let (symbol, price) = INSTRUMENTS[instrument as usize];
    let bid = f64::from(price) + dice.walk(100 + instrument).round();
    let ask = bid + 6.0 + dice.below(5, 1) as f64;
    let last = bid + dice.below(10, 2) as f64;
    let (bid_size, ask_size) = (250_000 * (1 + dice.below(12, 3)), 250_000 * (1 + dice.below(12, 4)));
    let volume = 41_000_000 + dice.place.sequence * 750_000;
    write!(
        payload,
        "{{\"symbol\":\"{symbol}\",\"bid\":{:.5},\"ask\":{:.5},\"last\":{:.5},\"bid_size\":{bid_size},\"ask_size\":{ask_size},\
         \"volume\":{volume}",
        bid / 1e5,
        ask / 1e5,
        last / 1e5,
    )
}

/// Who talks.
const NAMES: [&str; 24] = [
    "Amara", "Bogdan", "Chiara", "Dmitri", "Elif", "Farid", "Grace", "Hiroshi", "Ingrid", "Jonas", "Katya", "Liam",
    "Mei", "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Samuel", "Tuva", "Umar", "Vera", "Wen", "Yusuf",
];

/// What they talk of: the frequent words first.
const WORDS: [&str; 96] = [
    "the", "to", "you", "a", "it", "and", "is", "in", "that", "of", "we", "on", "for", "have", "this", "be", "not",
    "with", "can", "so", "just", "are", "but", "do", "if", "at", "like", "was", "what", "me", "all", "they", "now",
    "good", "know", "out", "get", "there", "one", "no", "time", "when", "think", "see", "would", "yes", "about", "how",
    "today", "game", "really", "going", "some", "come", "right", "well", "who", "make", "still", "back", "than",
    "here", "more", "people", "could", "thanks", "nice", "later", "work", "why", "never", "great", "maybe", "again",
    "should", "first", "tonight", "stream", "anyone", "link", "minute", "wait", "sure", "update", "server", "build",
    "weekend", "coffee", "train", "window", "answer", "problem", "morning", "question", "tomorrow", "goal",
];

fn write_chat(dice: &Dice, payload: &mut Vec<u8>) -> std::io::Result<()> {
    // Few talk at a time.
    let user = (dice.below(5, 0) + dice.place.sequence / 40) % NAMES.len() as u64;
    let name = NAMES[user as usize];
    write!(
        payload,
        "{{\"id\":\"{:012x}\",\"room\":\"lobby\",\"user\":{{\"id\":{},\"name\":\"{name}\",\"avatar\":\"/avatars/{}.png\"}},\"text\":\"",
        mix(dice.place.sequence ^ dice.key()) >> 16,
        48_213 + user * 977,
        name.to_lowercase(),
    )?;
    for word in 0..6 + dice.below(24, 1) {
        let separator = if word == 0 { "" } else { " " };
        write!(payload, "{separator}{}", dice.pick_unevenly(&WORDS, 10 + word))?;
    }
    write!(payload, "\"")
}

/// What happens in a match: the frequent first.
const EVENTS: [&str; 12] = [
    "pass",
    "carry",
    "reception",
    "pressure",
    "duel",
    "clearance",
    "interception",
    "throw_in",
    "foul",
    "shot",
    "corner",
    "offside",
];

fn write_event(dice: &Dice, payload: &mut Vec<u8>) -> std::io::Result<()> {
    let seconds = dice.place.sequence * 2 % 5_400;
    let is_home = dice.walk(0) + dice.below(3, 1) as f64 > 0.5;
    let player = dice.below(11, 2) + if is_home { 0 } else { 11 };
    let metres =
        |number, length: f64| ((length / 2.0 + dice.walk(number) * 2.0).rem_euclid(length) * 10.0).round() / 10.0;
    write!(
        payload,
        "{{\"match\":\"2026-11-30-ars-che\",\"period\":{},\"clock\":\"{:02}:{:02}\",\"type\":\"{}\",\"team\":\"{}\",\
         \"player\":{{\"id\":{},\"name\":\"{}\"}},\"from\":[{},{}],\"to\":[{},{}],\"outcome\":\"{}\",\
         \"score\":{{\"home\":{},\"away\":{}}}",
        1 + seconds / 2_700,
        seconds / 60,
        seconds % 60,
        dice.pick_unevenly(&EVENTS, 3),
        if is_home { "home" } else { "away" },
        10_450 + player * 31,
        NAMES[player as usize],
        metres(4, 105.0),
        metres(5, 68.0),
        metres(6, 105.0),
        metres(7, 68.0),
        if dice.below(5, 8) == 0 { "incomplete" } else { "complete" },
        seconds / 2_000,
        seconds / 3_100,
    )
}

const GOODS: [&str; 16] = [
    "Desk lamp",
    "Oak shelf",
    "Wool blanket",
    "Tea kettle",
    "Bread knife",
    "Rain jacket",
    "Trail shoes",
    "Camp stove",
    "Notebook",
    "Ink pen",
    "Wall clock",
    "Door mat",
    "Bike light",
    "Plant pot",
    "Cork board",
    "Travel mug",
];
const CITIES: [&str; 10] =
    ["Aarhus", "Bergen", "Cardiff", "Dresden", "Espoo", "Genoa", "Leuven", "Malmo", "Porto", "Utrecht"];
const STATES: [&str; 5] = ["paid", "packed", "shipped", "delivered", "returned"];

fn write_order(dice: &Dice, items: u64, payload: &mut Vec<u8>) -> std::io::Result<()> {
    let customer = dice.below(50_000, 0);
    write!(
        payload,
        "{{\"type\":\"order.updated\",\"order\":{{\"id\":{},\"status\":\"{}\",\"currency\":\"EUR\",\"customer\":{{\"id\":{},\
         \"name\":\"{}\",\"city\":\"{}\",\"country\":\"{}\"}},\"items\":[",
        7_310_000 + dice.place.sequence,
        dice.pick_unevenly(&STATES, 1),
        200_000 + customer,
        NAMES[customer as usize % NAMES.len()],
        CITIES[customer as usize % CITIES.len()],
        ["DK", "NO", "GB", "DE", "FI", "IT", "BE", "SE", "PT", "NL"][customer as usize % CITIES.len()],
    )?;
    let mut total = 0;
    for item in 0..items {
        let good = dice.below(GOODS.len() as u64, 20 + item);
        let (quantity, cents) = (1 + dice.below(4, 40 + item), 495 + good * 730);
        total += quantity * cents;
        let separator = if item == 0 { "" } else { "," };
        write!(
            payload,
            "{separator}{{\"sku\":\"TG-{}\",\"name\":\"{}\",\"quantity\":{quantity},\"price\":{}.{:02}}}",
            10_000 + good * 613,
            GOODS[good as usize],
            cents / 100,
            cents % 100,
        )?;
    }
    write!(payload, "],\"total\":{}.{:02},\"weight_g\":{}}}", total / 100, total % 100, 100 + dice.below(9_000, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [PayloadKind; 5] =
        [PayloadKind::Ticks, PayloadKind::Chat, PayloadKind::Match, PayloadKind::Json512, PayloadKind::Json1024];
    const STAMP: &[u8] = b"~tgl~00000001000000000000000200000000000000ab~";

    fn payload(kind: PayloadKind, place: Place) -> Vec<u8> {
        let mut payload = Vec::new();
        let stamp_place = kind.write(place, STAMP, &mut payload);
        assert_eq!(&payload[stamp_place..stamp_place + STAMP.len()], STAMP);
        payload
    }

    fn at(sequence: u64) -> Place {
        Place { seed: 1, stream: 0, sequence }
    }

    #[test]
    fn each_kind_is_json_of_about_the_length_that_it_says() {
        for (kind, bytes) in KINDS.into_iter().zip([179, 250, 265, 512, 1024]) {
            let lengths = (1..=500).map(|sequence| {
                let payload = payload(kind, at(sequence));
                let value: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
                assert_eq!(value["stamp"].as_str().map(str::as_bytes), Some(STAMP));
                payload.len()
            });
            let mean = lengths.sum::<usize>() / 500;
            assert!(mean.abs_diff(bytes) <= bytes / 25, "{kind:?}: {mean} bytes");
        }
    }

    #[test]
    fn a_payload_is_made_again_the_same_and_differs_from_every_other() {
        for kind in KINDS {
            let first = payload(kind, at(7));
            assert_eq!(first, payload(kind, at(7)));
            let others = [at(8), Place { seed: 2, ..at(7) }, Place { stream: 1, ..at(7) }];
            assert!(others.into_iter().all(|other| payload(kind, other) != first), "{kind:?}");
        }
    }

    #[test]
    fn figures_wander() {
        let walk = |sequence| Dice::new(at(sequence)).walk(3);
        let steps = |distance: u64| {
            (0..1_000).map(|sequence| (walk(sequence * 50) - walk(sequence * 50 + distance)).abs()).sum::<f64>()
                / 1_000.0
        };
        assert!(steps(1) > 0.1 && steps(1) < 2.0, "{}", steps(1));
        assert!(steps(1_000) > 5.0 * steps(1), "{}", steps(1_000));
    }
}
