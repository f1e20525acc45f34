//! Patches as an SDK applies them (protocol.md section 10), written apart from the server's encoder.

/// Digits of numbers, of which there are 64.
const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// What a patch makes of a payload; panics if it was not made for it.
pub fn apply(source: &[u8], patch: &[u8]) -> Vec<u8> {
    let mut reader = Reader { patch, position: 0 };
    let length = reader.number();
    reader.expect(b'\n');
    let mut target: Vec<u8> = Vec::new();
    loop {
        let number = reader.number();
        match reader.byte() {
            b'@' => {
                let start = reader.number();
                reader.expect(b',');
                target.extend(&source[start..start + number]);
            }
            b':' => {
                target.extend(&patch[reader.position..reader.position + number]);
                reader.position += number;
            }
            b';' => {
                assert_eq!(target.len(), length, "the length that the patch announces");
                assert_eq!(sum(&target), number as u32, "the patch is to another payload");
                assert_eq!(reader.position, patch.len(), "nothing follows the checksum");
                return target;
            }
            other => panic!("{other} in a patch"),
        }
    }
}

fn sum(bytes: &[u8]) -> u32 {
    // Of each four bytes the first counts most.
    bytes
        .iter()
        .enumerate()
        .fold(0, |sum: u32, (position, byte)| sum.wrapping_add(u32::from(*byte) << (8 * (3 - position % 4))))
}

struct Reader<'a> {
    patch: &'a [u8],
    position: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        self.position += 1;
        self.patch[self.position - 1]
    }

    fn expect(&mut self, byte: u8) {
        assert_eq!(self.byte(), byte);
    }

    fn number(&mut self) -> usize {
        let mut number = 0;
        while let Some(digit) = DIGITS.iter().position(|digit| *digit == self.patch[self.position]) {
            number = number * 64 + digit;
            self.position += 1;
        }
        number
    }
}
