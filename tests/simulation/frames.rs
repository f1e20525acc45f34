//! WebSocket as a strict client speaks it (RFC 6455), small enough to be read beside the rules.

/// Opcodes.
pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Appends a client's frame.
pub fn encode(out: &mut Vec<u8>, opcode: u8, is_last: bool, payload: &[u8], mask: [u8; 4]) {
    out.push(u8::from(is_last) << 7 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Appends a text message, cut into frames where `cuts` says.
pub fn encode_text(out: &mut Vec<u8>, text: &str, cuts: &[usize], mask: [u8; 4]) {
    let mut start = 0;
    let ends = cuts.iter().copied().filter(|&cut| cut <= text.len()).chain([text.len()]);
    for end in ends {
        if end < start {
            continue;
        }
        let opcode = if start == 0 { TEXT } else { 0 };
        // The first frame must not be followed by another with the opcode of a first.
        if start == 0 && end == 0 && !text.is_empty() {
            continue;
        }
        encode(out, opcode, end == text.len(), &text.as_bytes()[start..end], mask);
        if end == text.len() {
            return;
        }
        start = end;
    }
}

/// A server's frame: opcode and payload.
pub type Frame = (u8, Vec<u8>);

/// Takes the first frame of a server away, if all of it is there.
pub fn decode(bytes: &mut Vec<u8>) -> Option<Frame> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(first & 0xf0, 0x80, "the server neither fragments nor sets reserved bits");
    assert_eq!(second & 0x80, 0, "the server does not mask");
    let (header, length) = match second {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())),
        length => (2, u64::from(length)),
    };
    assert!(header == 2 || length > 125 && (header == 4 || length > 0xffff), "a length has its shortest form");
    let end = header + usize::try_from(length).unwrap();
    if bytes.len() < end {
        return None;
    }
    let payload = bytes[header..end].to_vec();
    bytes.drain(..end);
    Some((first & 0x0f, payload))
}
