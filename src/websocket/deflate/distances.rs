//! How far back a deflate stream refers: an own reading of its blocks (RFC 1951), for tests.
//!
//! Inflaters keep more than a window at times and let pass what a peer with a small one could not read.

/// The largest distance in a raw stream that ends where its last block does, or with a flush that was cut off.
pub(super) fn distance_max(stream: &[u8]) -> usize {
    let mut bits = Bits { stream, position: 0 };
    let mut largest = 0;
    loop {
        let (Some(is_last), Some(kind)) = (bits.take(1), bits.take(2)) else { return largest };
        match kind {
            0 => {
                bits.position = bits.position.next_multiple_of(8);
                // A flush whose lengths were cut off.
                let Some(length) = bits.take(16) else { return largest };
                bits.take(16);
                bits.position += 8 * length;
            }
            1 => largest = largest.max(bits.read_block(&Codes::fixed())),
            2 => {
                let codes = bits.read_codes();
                largest = largest.max(bits.read_block(&codes));
            }
            _ => panic!("no block is of kind 3"),
        }
        if is_last == 1 {
            return largest;
        }
    }
}

/// Codes of literals and lengths, and of distances.
struct Codes {
    literals: Symbols,
    distances: Symbols,
}

/// Symbols by their codes, each with a one before its first bit; codes have 15 bits at most.
struct Symbols(Vec<u16>);

const NO_SYMBOL: u16 = u16::MAX;

const LENGTH_EXTRA: [usize; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];

/// In which order the lengths of the lengths' codes are told (section 3.2.7).
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

impl Codes {
    fn fixed() -> Self {
        let length = |symbol| match symbol {
            0..144 => 8,
            144..256 => 9,
            256..280 => 7,
            _ => 8,
        };
        Self { literals: assign(&(0..288).map(length).collect::<Vec<_>>()), distances: assign(&[5; 30]) }
    }
}

/// Codes from their lengths (section 3.2.2).
fn assign(lengths: &[usize]) -> Symbols {
    let mut symbols = vec![NO_SYMBOL; 1 << 16];
    let mut value = 0;
    for bits in 1..=15 {
        for (symbol, _) in lengths.iter().enumerate().filter(|(_, length)| **length == bits) {
            symbols[1 << bits | value] = symbol as u16;
            value += 1;
        }
        value <<= 1;
    }
    Symbols(symbols)
}

struct Bits<'a> {
    stream: &'a [u8],
    position: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<usize> {
        let end = self.position + count;
        (end <= 8 * self.stream.len()).then(|| {
            let bit = |index: usize| usize::from(self.stream[index / 8] >> (index % 8) & 1);
            let value = (0..count).map(|offset| bit(self.position + offset) << offset).sum();
            self.position = end;
            value
        })
    }

    fn expect(&mut self, count: usize) -> usize {
        self.take(count).expect("a block goes on")
    }

    fn symbol(&mut self, symbols: &Symbols) -> usize {
        let mut code = 1;
        loop {
            code = code << 1 | self.expect(1);
            match symbols.0[code] {
                NO_SYMBOL => {}
                symbol => return symbol.into(),
            }
        }
    }

    fn read_block(&mut self, codes: &Codes) -> usize {
        let mut largest = 0;
        loop {
            match self.symbol(&codes.literals) {
                0..256 => {}
                256 => return largest,
                symbol => {
                    self.expect(LENGTH_EXTRA[symbol - 257]);
                    let symbol = self.symbol(&codes.distances);
                    let extra = (symbol / 2).saturating_sub(1);
                    let base = if symbol < 4 { symbol } else { (2 + symbol % 2) << extra };
                    largest = largest.max(base + 1 + self.expect(extra));
                }
            }
        }
    }

    fn read_codes(&mut self) -> Codes {
        let (literals, distances, lengths) = (self.expect(5) + 257, self.expect(5) + 1, self.expect(4) + 4);
        let mut code_lengths = [0; 19];
        for place in &ORDER[..lengths] {
            code_lengths[*place] = self.expect(3);
        }
        let codes = assign(&code_lengths);
        let mut all = Vec::new();
        while all.len() < literals + distances {
            match self.symbol(&codes) {
                16 => {
                    let last = *all.last().expect("a length to repeat");
                    let times = 3 + self.expect(2);
                    all.extend(std::iter::repeat_n(last, times));
                }
                17 => {
                    let times = 3 + self.expect(3);
                    all.extend(std::iter::repeat_n(0, times));
                }
                18 => {
                    let times = 11 + self.expect(7);
                    all.extend(std::iter::repeat_n(0, times));
                }
                length => all.push(length),
            }
        }
        Codes { distances: assign(&all.split_off(literals)), literals: assign(&all) }
    }
}

#[test]
fn distances_are_read_from_blocks_of_each_kind() {
    use flate2::{Compress, Compression, FlushCompress};
    let filler: Vec<u8> = (0..3000).flat_map(|number| format!("{number} ").into_bytes()).collect();
    let far = [b"a text that stands twice".as_slice(), &filler, b"a text that stands twice"].concat();
    let made = |level, payload: &[u8]| {
        let mut out = Vec::with_capacity(20_000);
        let mut compress = Compress::new(Compression::new(level), false);
        compress.compress_vec(payload, &mut out, FlushCompress::Finish).expect("room for all");
        out
    };
    assert_eq!(distance_max(&made(9, &far)), filler.len() + 24);
    assert_eq!(distance_max(&made(9, b"abcabcabcabc")), 3);
    assert_eq!(distance_max(&made(0, &far)), 0);
}
